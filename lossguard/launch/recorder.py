"""The thread of the launcher that records: it reads the journal of the child, and writes and delivers the run."""

import importlib
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lossguard.launch.hooks.journal import TEXT
from lossguard.launch.journal_reader import JournalReader
from lossguard.run.run import NO_STEPS, Run
from lossguard.sources.names import NameMap
from lossguard.sources.recorder import RunRecorder
from lossguard.sources.rows import Row
from lossguard.spool.folders import lock_folder, make_folder
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import SpoolReader
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts, facts_of
from lossguard.vocabulary.states import RunState, SegmentReason

if TYPE_CHECKING:
    from lossguard.run.recording import RecordingRun  # with the HTTP client: imported once a run begins

POLL_SECONDS = 0.1
RETRY_SECONDS = 30.0
"""Pause after which a run that could not be begun is tried again."""
JOURNAL = ".journal"

SILENT_AFTER = 60.0
"""Seconds without anything to record after which that is said."""

NOTHING_RECORDED = (
    "nothing was recorded: no tracker (wandb, tensorboard, mlflow, ..) was called; --pattern REGEX reads printed lines"
)
NOTHING_YET = (
    "nothing to record so far: no tracker was called and no printed line is known; --pattern REGEX says how one looks"
)
TRACKER_IGNORED = (
    "a tracker is called now: its rows are left out, because printed lines are recorded; --no-text records the tracker"
)

logger = logging.getLogger("lossguard")

Facts = dict[str, Any]
"""Facts that trackers know of the run: project, name, config, tags."""


class Origin(Protocol):
    """The beginning of a launch's run."""

    def begin(self, facts: Facts) -> Run:
        """The run, begun. Raises ConfigurationError."""

    def config(self, facts: Facts) -> dict[str, Any]:
        """The configuration as it is recorded. Raises ConfigurationError."""

    def folder(self, facts: Facts) -> Path:
        """The folder in which the run is recorded."""


class Recorder(threading.Thread):
    """Follows the journals of one run, in the order in which `follow` names them, until `close`."""

    def __init__(self, origin: Origin, names: NameMap, *, at_once: bool = False, takes_text: bool = False) -> None:
        """`at_once`: begin the run before anything is logged; otherwise its project is not known before. `takes_text`:
        record printed rows, and no tracker; otherwise they wait for a tracker's call for a minute."""
        super().__init__(name="lossguard-recorder", daemon=True)
        self._origin = origin
        self._names = names
        self._at_once = at_once
        self._takes_text: bool | None = takes_text or None  # None: the tracker may still call
        self._text_facts = EVERY_STEP
        self._silent_at = time.monotonic() + SILENT_AFTER
        self._facts: Facts = {}
        self._recorder: RunRecorder | None = None
        self._recorded_until = 0.0  # time of the newest row that an earlier launcher has recorded
        self._following: JournalReader | None = None
        self._is_left = False  # an earlier launcher may have recorded some of this journal
        self._opens_segment = False  # the first row of this child begins one
        self._retry_at = 0.0
        self._lock = threading.RLock()  # of all of this: `follow` and `close` are called from the main thread
        self._closing = threading.Event()
        self._log_once = LogOnce()
        self.recorded: RecordingRun | None = None
        """The run, once it has begun here: it takes orders, and opens segments for a child that is started again."""
        self.script_reports = False
        """True if the script calls `lossguard.init`: then it records itself."""
        self.has_reported = False
        """True if the script has done so, now or before it was started again."""
        self.batch_of: Callable[[int], int | None] = lambda step: None
        """The batch of a step, where the launcher knows it: it is recorded with the step."""
        self.leave_text: Callable[[], None] = lambda: None
        """Called when printed rows are not recorded."""
        self.ended: dict[str, Any] | None = None
        """Last entry of the child's interpreter; None: there is none, as after kill -9."""

    def begin_at_once(self) -> Run | None:
        """The run, begun now if its project is known; None otherwise. Raises ConfigurationError."""
        with self._lock:
            if self.recorded is None and self._at_once:
                self._begin()
            self.drain()  # what an earlier launcher has left stands before the segment that the caller opens
            return self.recorded

    def follow(self, journal: Path, *, opens_segment: bool = True, is_left: bool = True) -> None:
        """Record what is logged to `journal` from now on, and first what is left of the one before.

        `opens_segment`: the child that writes it continues the run in a new segment; not if the caller opens one.
        `is_left`: an earlier launcher may have recorded some of it; then rows that are not newer are left out.
        """
        with self._lock:
            self._leave_journal()
            if self._recorder is not None:
                self._recorder.begin_again()
            self._opens_segment = opens_segment and self._recorder is not None
            self._following, self._is_left = JournalReader(journal), is_left
            self.script_reports, self.ended = False, None

    def drain(self, *, final: bool = False) -> bool:
        """Record everything that stands in the journal: its child has ended. Returns whether that worked. `final`: no
        other child follows."""
        with self._lock:
            if (following := self._following) is None:
                return True
            try:
                self._advance(following)
                self._take_text(following)
                self._write(following.rows.close())
                if self._recorder is not None:
                    self._recorder.flush(final=final or self._is_left)
                    following.save()
            except Exception as problem:
                self._log_once.warn_once(str(problem), f"{problem}; {following.path} keeps what was logged")
                return False
            return True

    def run(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            self._step()

    def close(self, state: RunState, timeout: float) -> None:
        """Record and deliver the rest, and end the run in `state`. Whatever is not recorded stays in the journal."""
        self._closing.set()
        with self._lock:
            self._leave_journal(final=True)
            if self._is_silent():
                log_once = self._log_once if self.recorded is None else self.recorded.log_once
                log_once.warn_once(NO_STEPS, NOTHING_RECORDED)
            if self._recorder is not None:
                self._recorder.say_preview()
                self._recorder.run.finish(state, timeout)

    def _is_silent(self) -> bool:
        """Return True if nothing was recorded, neither here nor by the script itself."""
        return not self.has_reported and (self._recorder is None or not self._recorder.preview.num_rows)

    def _leave_journal(self, *, final: bool = False) -> None:
        """Record the rest of the journal; it is deleted if that worked, and nobody writes it any more."""
        if self._following is not None:
            self._following.close(is_done=self.drain(final=final) and not self._following.is_still_written())
            self._following = None

    def _step(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        with self._lock:
            try:
                if self._at_once and self.recorded is None and not self.script_reports:
                    self._begin_or_stand_back()
                if (following := self._following) is not None:
                    self._advance(following)
                    self._take_text_if_due(following, time.time())
                    self._write(following.rows.flush_if_quiet(time.time()))
                    if self._recorder is not None:
                        following.save()
                    has_rows = following.held or following.rows.begin is not None
                    if self._is_silent() and not has_rows and time.monotonic() > self._silent_at:
                        self._log_once.warn_once("silence", NOTHING_YET)
            except Exception as problem:  # the child goes on, and its journal keeps everything
                self._log_once.warn_once(str(problem), f"{problem}; what is logged stays in the journal meanwhile")
                self._retry_at = time.monotonic() + RETRY_SECONDS

    def _advance(self, following: JournalReader) -> None:
        """Take in what the journal has."""
        for entry, begin, end in following.entries():
            self._take_text_if_due(following, entry.get("time", 0.0))
            is_text, is_call = entry.get("tracker") == TEXT, "values" in entry and entry.get("tracker") != TEXT
            if is_call and self._takes_text is None:
                self._leave_text()
            if is_text and self._takes_text is None:
                following.held.append((entry, begin))
            elif is_call and self._takes_text:
                self._log_once.warn_once("tracker", TRACKER_IGNORED)
            elif not is_text or self._takes_text:
                self._take_in(following, entry, begin)
            following.taken = end

    def _take_in(self, following: JournalReader, entry: dict[str, Any], begin: int) -> None:
        """Take in one entry. Raises what beginning the run raises: then it is taken in later."""
        if "values" in entry and self._recorder is None and not self.script_reports:
            self._begin_or_stand_back()
        try:
            if "values" in entry:
                self._write(following.rows.add_entry(entry, begin))
            elif "script_reports" in entry:
                self._hand_over()
            elif "ended" in entry:
                self.ended = entry
            elif entry:
                self._describe(entry)
        except (KeyError, TypeError, ValueError, OverflowError) as problem:
            self._log_once.warn_once(
                f"entry {type(problem).__name__}", f"a line of {following.path} was not recorded: {problem}"
            )

    def _take_text_if_due(self, following: JournalReader, now: float) -> None:
        if self._takes_text or following.has_waited(now):
            self._take_text(following)

    def _take_text(self, following: JournalReader) -> None:
        """Record the printed rows that are held, and those that come: no tracker was called."""
        while following.held:
            self._takes_text = True
            self._take_in(following, *following.held[0])
            if following.held:  # not if the script reports itself
                following.held.popleft()

    def _leave_text(self) -> None:
        """A tracker is called, or the script reports itself: what is printed is not recorded."""
        self._takes_text = False
        if self._following is not None:
            self._following.held.clear()
        self.leave_text()

    def _write(self, rows: list[Row]) -> None:
        if self.script_reports:
            return
        for row in rows:
            if self._is_left and row.time is not None and row.time <= self._recorded_until:
                continue
            assert self._recorder is not None
            if not self._recorder.comes_late(row):
                if self._opens_segment:
                    self._opens_segment = False
                    self._recorder.run.open_segment(row.step, SegmentReason.RESUME)
                if (batch := self.batch_of(row.step)) is not None:
                    row.values.setdefault("batch_index", batch)
            self._recorder.write_row(row)

    def _describe(self, entry: dict[str, Any]) -> None:
        """Names and configuration of a tracker; the first tracker that says something of a field is believed."""
        if entry.get("tracker") == TEXT:
            self._text_facts = SourceFacts.from_details(entry["facts"])
            self._log_once.warn_once("text", f"the command prints {entry['what']}: they are recorded")
        known = {name: entry[name] for name in ("project", "name", "tags") if entry.get(name)}
        config = {**(entry.get("config") or {}), **(self._facts.get("config") or {})}
        self._facts = {**known, **self._facts, "config": config}
        if self.recorded is not None and self._recorder is not None:
            self.recorded.describe(config=self._origin.config(self._facts))
            self._recorder.know(self._source_facts())
        elif "project" in known:
            self._at_once = True

    def _begin_or_stand_back(self) -> None:
        """Begin the run unless the script reports itself. It says so before it takes the run's folder, so nothing is
        missed if the folder is taken before the last look."""
        importlib.import_module("lossguard.run.start")  # takes a while, in which the script may begin to report itself
        with ExitStack() as held:
            if not self._is_left_to_script():
                with suppress(ConfigurationError, OSError):  # `begin` waits for the folder, or says what is wrong
                    folder = self._origin.folder(self._facts)
                    make_folder(folder)
                    held.callback(lock_folder(folder, wait=0.0, remedy="").release)
            if self._is_left_to_script():
                self._hand_over()
            else:
                self._begin()

    def _is_left_to_script(self) -> bool:
        return self._following is not None and self._following.has("script_reports")

    def _begin(self) -> None:
        from lossguard.run.recording import RecordingRun

        run = self._origin.begin(self._facts)
        assert isinstance(run, RecordingRun)
        newest = _newest_row(run.directory)
        self._recorded_until = 0.0 if newest is None or newest.time is None else newest.time
        where = f"They are recorded as run {run.id} in {run.directory}."
        self._recorder = RunRecorder(
            *(run, self._names, self._source_facts()), say=lambda preview: logger.warning(f"{preview}\n{where}")
        )
        self._recorder.begin_again(newest)
        self.recorded = run

    def _source_facts(self) -> SourceFacts:
        return self._text_facts if self._takes_text else facts_of(self._facts.get("config") or {})

    def _hand_over(self) -> None:
        self.script_reports = self.has_reported = True
        self._leave_text()
        if self.recorded is not None:
            self.recorded.hand_over()
        self.recorded = self._recorder = None


def _newest_row(folder: Path | None) -> Row | None:
    """Step and time of the newest row that is recorded in the run's folder."""
    found = []
    for path in [] if folder is None else spools_in(folder):
        with SpoolReader(path) as reader:
            found += [] if (last := reader.last_step()) is None else [Row(*last, {})]
    return max(found, key=lambda row: row.time or 0.0, default=None)
