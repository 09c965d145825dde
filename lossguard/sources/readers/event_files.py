"""TensorBoard folders. A folder with event files is a run, as in TensorBoard; its files are read in the order of their
begin: a process that resumes the run begins another file. Files of one process are read side by side, and so is a file
of an earlier process that grows again: a tag that several processes log, as ranks do, belongs to the newest of them.
Files without a scalar are left alone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import merge
from pathlib import Path
from typing import Any

from lossguard.sources.files.source_files import files_below
from lossguard.sources.joining import Joiner, PlacedRow
from lossguard.sources.names import NameMap
from lossguard.sources.readers.event_records import (
    EventFile,
    about_rows,
    begin_of,
    config_of,
    event_type,
    files_of,
    first_event,
    has_scalar,
    host_of,
    is_event_file,
    process_of,
    scalar_of,
)
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.protocol import MAX_STEP, is_time
from lossguard.vocabulary.source_facts import SourceFacts, facts_of

WHAT = "TensorBoard event files"
SETTLED_NS = 5_000_000_000
"""A folder that changed within these nanoseconds may change again without another time of change."""
SILENT_SECONDS = 3600.0
"""After so long without a value of a tag, its process has ended where an earlier one goes on with the tag."""
Place = tuple[EventFile, int, bytes]
"""A record: its file, offset and header."""


@dataclass(slots=True)
class EventFollower:
    """The rows of a folder that grows."""

    folder: Path
    joiner: Joiner
    _open: list[EventFile] = field(default_factory=list)  # those of the process that is read
    _left: list[EventFile] = field(default_factory=list)  # those of earlier processes
    _read: set[str] = field(default_factory=set)  # names of files that were opened
    _unread: list[Path] = field(default_factory=list)  # files that were not, as of the last listing
    _scalarless: dict[str, EventFile] = field(default_factory=dict)  # those of them that have no scalar yet
    _owners: dict[str, tuple[EventFile, float]] = field(default_factory=dict)  # tag -> file that it is read from, time
    _event: Any = field(default_factory=event_type)
    _is_final: bool = False
    _listed_at: int | None = None  # when the folder changed, as of its last listing
    _log_once: LogOnce = field(default_factory=LogOnce)

    @property
    def facts(self) -> SourceFacts:
        """Facts about how the rows are made, as far as the configuration says."""
        return facts_of(config_of(self.folder)) if self.folder.is_dir() else SourceFacts()

    def __post_init__(self) -> None:
        if self.joiner.recorded is not None:
            self._resume(self.joiner.recorded.position)

    def poll(self, *, final: bool = False) -> Iterator[PlacedRow]:
        """The rows that are new; `final`: nothing more comes. Raises OSError, and BadSource where two runs write it."""
        now = time.monotonic()
        self._is_final = final
        while True:
            following = self._following()
            yield from self._read_open(now)
            if not following:
                break
            if not self._is_of_present(following[0]):
                self._left += self._open
                self._open = []
            self._open += [EventFile(path) for path in following]
            self._read |= {path.name for path in following}
            self._unread = [path for path in self._unread if path.name not in self._read]
        yield from self.joiner.flush(now, final=final)

    def close(self) -> None:
        self._open.clear()
        self._left.clear()

    def _resume(self, position: list[Any]) -> None:
        """`position`: name, offset, and header in hexadecimal of the record in each file that is read."""
        files = {path.name: path for path in files_of(self.folder)}
        for name, offset, header in position:
            if name not in files or not (header or offset):
                continue
            file = EventFile(files[name], offset)
            if not header or file.has_header(offset, bytes.fromhex(header)):
                self._open.append(file)
        if not self._open:
            self.joiner.begin_anew()
            return
        newest, present = max(begin_of(file.path) for file in self._open), {file.path.name for file in self._open}
        untaken = {name for name, offset, header in position if not (header or offset)}
        self._read = {name for name, path in files.items() if begin_of(path) <= newest} - untaken | present
        self._left = [EventFile(path) for name, path in files.items() if name in self._read - present]
        known = sorted(self._left + self._open, key=lambda each: begin_of(each.path))
        for file in known if len(known) > 1 else []:
            is_open = file.path.name in present  # the others are passed over to their ends, which were read
            events = self._events(EventFile(file.path) if is_open else file)
            for tag, at in {value.tag: event.wall_time for event, _ in events for value in event.summary.value}.items():
                if tag not in self._owners or not self._owners[tag][1] - at > SILENT_SECONDS:
                    self._owners[tag] = file, at

    def _following(self) -> list[Path]:
        """The files that are read next: those of the process that has begun the next one."""
        try:
            changed_at = self.folder.stat().st_mtime_ns
        except OSError:
            return []
        if changed_at != self._listed_at:
            is_settled = time.time_ns() - changed_at > SETTLED_NS
            self._listed_at = changed_at if is_settled else None
            self._unread = [path for path in files_of(self.folder) if path.name not in self._read]
        same = [path for path in self._unread if self._is_of_present(path)]
        if same:
            return same
        first = next(filter(self._has_scalar, self._unread), None)
        return [] if first is None else [path for path in self._unread if process_of(path) == process_of(first)]

    def _is_of_present(self, path: Path) -> bool:
        """Return True for a file of a process that is read."""
        return process_of(path) in {process_of(file.path) for file in self._open}

    def _has_scalar(self, path: Path) -> bool:
        """Return True if a file that is not open has a scalar by now, or is damaged, which is said once it is read."""
        file = self._scalarless.pop(path.name, None) or EventFile(path)
        try:
            for _, _, data in file.records():
                if has_scalar(self._event.FromString(data)):
                    return True
        except FileNotFoundError:
            return False
        except OSError:
            raise
        except Exception:  # DecodeError, as in `_events`
            return True
        self._scalarless[path.name] = file
        return file.is_damaged

    def _read_open(self, now: float) -> Iterator[PlacedRow]:
        """Yield what is new in the open files, in the order in which it was logged."""
        grown = [file for file in self._left if file.has_changed()]
        self._left = [file for file in self._left if file not in grown]
        self._open += grown
        yield from self._add(merge(*map(self._events, self._open), key=lambda each: each[0].wall_time), now)

    def _events(self, file: EventFile) -> Iterator[tuple[Any, Place]]:
        parse = self._event.FromString
        try:
            for offset, header, data in file.records():
                try:
                    event = parse(data)
                except Exception:  # DecodeError; its class depends on the implementation
                    file.offset, file.is_damaged = offset, True
                    break
                if event.HasField("summary"):
                    file.unread = offset  # until the next one is asked for
                    yield event, (file, offset, header)
        except FileNotFoundError:
            return
        file.unread = file.offset
        if file.is_damaged:
            words = f"{file.path} is no event file behind byte {file.offset}: a record is damaged"
            if self._is_final:
                raise BadSource(words)
            self._log_once.warn_once(str(file.path), f"{words}; it is read on when it changes")

    def _add(self, events: Iterator[tuple[Any, Place]], now: float) -> Iterator[PlacedRow]:
        add = self.joiner.add_value
        for event, place in events:
            step = event.step
            if not 0 <= step < MAX_STEP:
                continue
            at = event.wall_time if is_time(event.wall_time) else None
            for value in event.summary.value:
                number = scalar_of(value)
                if number is None or not self._is_read_from(place[0], value.tag, event.wall_time):
                    continue
                if rows := add(value.tag, number, step, at, place, now):
                    yield from rows

    def _is_read_from(self, file: EventFile, tag: str, at: float) -> bool:
        """Return True unless a process that began later than that of the file logs the tag, too, which is said once."""
        owner, newest = self._owners.get(tag, (file, at))
        if (
            owner is file
            or process_of(owner.path) == process_of(file.path)
            or begin_of(owner.path) < begin_of(file.path)
            or at - newest > SILENT_SECONDS
        ):
            self._owners[tag] = file, at
            return True
        self._log_once.warn_once(
            "processes",
            f"{self.folder}: several processes log {tag!r:.200}; the newest is followed ({owner.path.name}): "
            "let one rank log, or give each run a folder of its own",
        )
        return False

    def position_of(self, place: Place) -> list[Any]:
        """Return where the open files are read on for the row that begins at `place`."""
        file, offset, header = place
        others = [[each.path.name, each.unread, ""] for each in self._open if each is not file]
        return [[file.path.name, offset, header.hex()], *others]


def follow(folder: Path, joiner: Joiner) -> EventFollower:
    follower = EventFollower(folder, joiner)
    joiner.position_of = follower.position_of
    return follower


def places_in(path: Path) -> list[Path]:
    """The folders with event files at or below `path`; an event file stands for its folder."""
    if path.is_file():
        return [path.parent] if is_event_file(path) else []
    return sorted({file.parent for file in files_below(path, "*tfevents*") if is_event_file(file)})


def runs_in(path: Path) -> Iterator[SourceRun]:
    """The runs below `path`; a folder with nothing but hyperparameters belongs to the run above it."""
    for folder in places_in(path):
        if (first := first_event(folder)) is None:
            continue
        config = config_of(folder)
        below = str(folder.relative_to(path)) if path.is_dir() and folder != path else ""
        yield SourceRun(
            format="tensorboard",
            identity=files_of(folder)[0].name + "\n" + folder.resolve().name,
            name=below or folder.resolve().name,  # TensorBoard names runs by the path below the folder that is read
            place=str(folder),
            rows=partial(_rows, folder),
            config=config,
            facts=facts_of(config),
            started_at=first.wall_time if is_time(first.wall_time) else None,
            size=about_rows(folder),
            host=host_of(files_of(folder)[0]),
        )


def _rows(folder: Path) -> Iterator[Row]:
    joiner = Joiner(NameMap(), place=folder)
    return (placed.row for placed in EventFollower(folder, joiner).poll(final=True))
