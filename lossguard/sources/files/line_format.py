"""Formats of one row per line: find such files, follow them while they grow, and import them."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from lossguard.sources.files.growing_file import MAX_LINE, FileLine, GrowingFile
from lossguard.sources.files.source_files import files_below, opened, read_beginning
from lossguard.sources.joining import Joiner, PlacedRow
from lossguard.sources.names import NameMap
from lossguard.sources.rows import LineParser, Row
from lossguard.sources.source_run import SourceRun
from lossguard.spool.writer import this_process
from lossguard.vocabulary.errors import logger
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.wording import plural

SNIFF_BYTES = 1 << 16
"""Bytes at the beginning of a table in which its first row must be."""


@dataclass(slots=True)
class LineFollower:
    """The rows of a file that grows."""

    file: GrowingFile
    parser: LineParser
    joiner: Joiner
    _has_begun: bool = field(default=False)
    _num_left_out: int = field(default=0)  # lines of the file, or values of them
    _first_left_out: str = field(default="")

    @property
    def facts(self) -> SourceFacts:
        return self.parser.facts

    def poll(self, *, final: bool = False) -> Iterator[PlacedRow]:
        """The rows that are new; `final`: nothing more comes. Raises OSError, and BadSource where two runs write it."""
        now = time.monotonic()
        for line in self.file.read():
            if line.is_first and self._has_begun:
                self.parser.begin_anew()
                self._num_left_out = 0
                yield from self.joiner.begin_anew()
            self._has_begun = True
            if (part := self.parser.parse(line.text)) is not None:
                yield from self.joiner.add(part, line, now)
            if problem := self.parser.problem:
                self._leave_out(line, problem)
        if final and (rest := self.file.unfinished()) is not None:
            part = self.parser.parse(rest.text)
            is_cut = part is not None and not self.parser.is_whole(rest.text)
            if part is not None and not is_cut:
                yield from self.joiner.add(part, rest, now)
            if problem := "it has no line end" if is_cut else self.parser.problem:
                self._leave_out(rest, problem)
        yield from self.joiner.flush(now, final=final)

    def warn_of_left_out(self) -> None:
        """Say how many lines of the file are no rows, or lack a value, although they should not, if there are any."""
        if self._num_left_out:
            number = plural(self._num_left_out, "line was", "lines were")
            logger.warning(
                f"{self.file.path}: {number} left out, whole or in part; the first is {self._first_left_out}"
            )

    def close(self) -> None:
        self.warn_of_left_out()
        self.file.close()

    def _leave_out(self, line: FileLine, problem: str) -> None:
        if not self._num_left_out:
            self._first_left_out = f"line {self.file.num_lines_before(line.offset) + 1:,}: {problem}"
        self._num_left_out += 1


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A format of one row per line: its files are found, followed while they grow, and imported.

    `layout`: the user's description of the rows, where there is one.
    """

    name: str
    suffixes: Sequence[str]
    makers: Callable[[Any], Sequence[Callable[[], LineParser]]]
    """Return for a layout what makes a parser: one for each kind of lines that a file may have."""
    first_bytes: int = SNIFF_BYTES
    """Bytes at the beginning of a file in which its first row must be."""
    older: Callable[[Path], Sequence[Path]] = lambda path: ()
    """Return the files whose rows say of which kind the next ones are, while a followed file has none yet."""

    def places_in(self, path: Path, layout: Any = None) -> Iterator[Path]:
        """The files at or below `path` that can be followed."""
        return (file for file in files_in(path, self.suffixes) if self._maker_of_followed(file, layout) is not None)

    def runs_in(self, path: Path, layout: Any = None) -> Iterator[SourceRun]:
        """The files at or below `path` as runs, named by their file, or by its folder where many have that name."""
        for file in files_in(path, self.suffixes):
            if (found := self._recognised(file, layout)) is not None:
                make, first_line = found
                parser = make()
                yield SourceRun(
                    format=self.name,
                    identity=identity_of(file, first_line),
                    name=name_of(file),
                    place=str(file),
                    rows=partial(_rows, file, make),
                    config=parser.config,
                    ended_at=file.stat().st_mtime,
                    size=about_rows(file, parser),
                    facts=parser.facts,
                )

    def follow(self, path: Path, joiner: Joiner, layout: Any = None) -> LineFollower:
        """Go on at the line of the joiner's recorded row if the file still has it, else at the file's beginning."""
        make, *others = self.makers(layout)
        if others and (found := self._maker_of_followed(path, layout)) is not None:
            make = found
        parser, recorded = make(), joiner.recorded
        joiner.position_of = attrgetter("position")
        file = GrowingFile(path, None if recorded is None else recorded.position, ends=parser.ends)
        if recorded is not None:
            with suppress(OSError), opened(path) as present:
                parser.parse(present.readline(MAX_LINE).rstrip(b"\r\n"))  # a header
                while parser.reads_headers and file.is_resumed and present.tell() < recorded.position[1]:
                    parser.parse(present.readline(MAX_LINE).rstrip(b"\r\n"))
            if not file.is_resumed:
                joiner.begin_anew()
        return LineFollower(file, parser, joiner, recorded is not None)

    def _recognised(self, path: Path, layout: Any) -> tuple[Callable[[], LineParser], bytes] | None:
        """Return what makes the parser of a file, and the line of its first row; None for a file of another format."""
        lines = beginning(path, self.first_bytes)
        for make in self.makers(layout):
            parser = make()
            for line in lines:
                if (row := parser.parse(line)) is not None and parser.shows(row):
                    return make, line
        return None

    def _maker_of_followed(self, path: Path, layout: Any) -> Callable[[], LineParser] | None:
        found = (self._recognised(file, layout) for file in (path, *self.older(path)))
        return next((each[0] for each in found if each is not None), None)


def _rows(path: Path, make: Callable[[], LineParser]) -> Iterator[Row]:
    parser = make()
    follower = LineFollower(GrowingFile(path, ends=parser.ends), parser, Joiner(NameMap(), place=path))
    try:
        for placed in follower.poll(final=True):
            yield placed.row
        follower.warn_of_left_out()
    finally:
        follower.file.close()


def has_magic(path: Path, magic: bytes) -> bool:
    """Return True if a file begins with these bytes."""
    try:
        return read_beginning(path, len(magic)) == magic
    except OSError:
        return False


def files_in(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The file itself, or the files below a folder that have one of these suffixes."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in files_below(path):
            if file.suffix in suffixes and not any(part.startswith(".") for part in file.relative_to(path).parts):
                yield file


def beginning(path: Path, size: int = SNIFF_BYTES) -> list[bytes]:
    """The lines among the first `size` bytes, without the NUL bytes that a crash leaves at their ends; none of a file
    that is not text: it has some within its lines."""
    try:
        data = read_beginning(path, size)
    except OSError:
        return []
    lines = [line.strip(b"\0") for line in data.replace(b"\r", b"\n").split(b"\n")]
    return [] if any(b"\0" in line for line in lines) else [line for line in lines if line]


def identity_of(path: Path, first_line: bytes) -> str:
    """Return the identity of a file without an id: machine, path and first row. A new run in its place differs."""
    host = this_process().partition("@")[2]
    return f"{host}:{path.resolve()}:{first_line.decode(errors='replace')}"


def about_rows(path: Path, parser: LineParser) -> int:
    """About how many rows a file has, by those at its beginning."""
    lines = beginning(path)
    num_bytes, num_rows = sum(len(line) + 1 for line in lines), sum(parser.parse(line) is not None for line in lines)
    return round(num_rows * path.stat().st_size / max(1, num_bytes))


_COMMON_NAME = re.compile("metrics|logs?|train|training|train_log|history|stdout|output|main|results|out")


def has_common_name(path: Path) -> bool:
    """Return True if the name of a file does not tell its run from others."""
    return _COMMON_NAME.fullmatch(path.stem.lower()) is not None


def name_of(path: Path) -> str:
    """The name of a file without its suffix; with its folder's before it where the file's own says nothing."""
    return f"{path.resolve().parent.name}/{path.stem}" if has_common_name(path) else path.stem
