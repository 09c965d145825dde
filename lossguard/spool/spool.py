"""The spool: append-only files of JSON lines, one for each session (process). It is the queue between loop and sender.

    <LOSSGUARD_DIR>/<project>/<run id>/<session>.spool          lines, each written with one write call
                                       <session>_<bytes>.spool  more of them, if files have a limit (see below)
                                       <session>.acknowledged   how many bytes of the file the collector has
                                       damaged.jsonl            byte ranges that cannot be read (`set_aside`)
                                       rejected.jsonl           lines that the collector rejected

The name of a session is hexadecimal and sorts by time, after all existing names even when the clock was set back. A
kill -9 truncates the last line at most: a line without its newline is ignored. A power loss may lose lines (no fsync on
the path of a step).

With a limit, a session continues in another file, so that delivered files can be archived while it runs (`archive`).
Such a file begins with the registration and the open segment, marked as repeated: it can be delivered on its own. Its
name has the number of bytes in the session's files before it.
"""

import os
import re
import threading
import time
from collections import deque
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from lossguard.spool.band import MAX_STEPS, Measured
from lossguard.spool.device_scalars import PendingScalar
from lossguard.spool.folders import lock_file, open_private
from lossguard.spool.lines import Record, from_line, to_line
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.metrics import COUNTS, SKIPPED
from lossguard.vocabulary.protocol import (
    ARMS,
    CHECKPOINT_UNCERTIFIED,
    EXPECT,
    PROBE,
    REMEDY,
    SKIPPED_SAMPLE_RETURNED,
    is_count,
)
from lossguard.vocabulary.source_facts import SOURCE
from lossguard.vocabulary.wording import plural

BACKLOG_LIMIT = 16 << 20
"""Bytes of lines that are kept in memory while the disk cannot be written."""
KEPT = (b'{"run"', b'{"segment"', b'{"answer"', b'{"finish"')
"""The few lines that stay in memory beyond this limit: without them, later steps and orders would be misunderstood."""
CHUNK = 1 << 20
"""Bytes of the backlog that one call writes: a loop must not wait for all of it."""
SESSION = re.compile("[0-9a-f]{22}")


def new_session(directory: Path) -> str:
    """A name that sorts after those in `directory`, whatever the clock shows."""
    names = [path.stem for pattern in ("*.spool", "*.control") for path in directory.glob(pattern)]
    known = [int(name[:16], 16) for name in names if SESSION.fullmatch(name)]
    return f"{max([time.time_ns(), *(begun + 1 for begun in known)]):016x}{os.urandom(3).hex()}"


def spools_in(directory: Path) -> list[Path]:
    """The spool files of a run that are not archived, oldest first."""
    return sorted(directory.glob("*.spool"))  # "_" sorts behind "."


def session_of(path: Path) -> tuple[str, int]:
    """(session, bytes in its files before this one) of a spool file."""
    session, _, before = path.name.partition(".")[0].partition("_")
    return session, int(before) if before.isdecimal() else 0


class Spool:
    """The writing end. Not thread-safe: `Writer` serialises."""

    def __init__(
        self, path: Path, log_once: LogOnce, *, backlog_limit: int = BACKLOG_LIMIT, file_limit: int | None = None
    ) -> None:
        """`file_limit`: bytes after which the session continues in another file. Raises OSError."""
        self.path = path
        """The file that is written now."""
        self._log_once = log_once
        self._backlog_limit = backlog_limit
        self._backlog = bytearray()  # the rest of a partial write, then whole lines
        self._num_lost = 0
        self._file_limit = file_limit
        self._opening: dict[bytes, bytes] = {}  # the newest registration and segment line, by their first bytes
        self._fd = _create(path)

    def append(self, line: bytes) -> None:
        """Append `line` (with its newline). On a full disk it stays in memory, up to a limit; never raises."""
        if self._file_limit is not None:
            self._continue_in_another_file(self._file_limit)
            if line.startswith((b'{"run"', b'{"segment"')):
                self._opening[line[:5]] = line
        if self._backlog:
            self._write_chunk()
            if self._backlog:
                self._buffer(line)
                return
        try:
            written = os.write(self._fd, line)
        except OSError as problem:
            written = 0
            self._warn_unwritable(problem)
        if written < len(line):
            self._buffer(line[written:], is_begun=written > 0)

    def retry(self) -> bool:
        """Write the backlog. Returns whether nothing is left."""
        while self._backlog and self._write_chunk():
            pass
        return not self._backlog

    def close(self) -> None:
        """Close the file. Never raises: a file system over the network may report only now that it lost lines."""
        if self._num_lost:
            lost = plural(self._num_lost, "line is", "lines are")
            self._log_once.warn(f"{lost} lost: {self.path} could not be written")
        if self._backlog:
            lost = plural(self._backlog.count(b"\n"), "line in memory is", "lines in memory are")
            self._log_once.warn(f"{self.path} cannot be written: {lost} lost")
        self._close_file()

    def _write_chunk(self) -> bool:
        """Write the beginning of the backlog. Returns whether that worked."""
        try:
            written = os.write(self._fd, bytes(self._backlog[:CHUNK]))
        except OSError as problem:
            self._warn_unwritable(problem)
            return False
        del self._backlog[:written]
        if not self._backlog and self._log_once.reset("spool"):
            lost = plural(self._num_lost, "line was", "lines were")
            self._log_once.warn(f"{self.path} can be written again; {lost} lost meanwhile")
            self._num_lost = 0
            self._log_once.reset("spool-full")
        return True

    def _buffer(self, rest: bytes, *, is_begun: bool = False) -> None:
        """Keep `rest` in memory. Steps and events beyond the limit are lost; other lines, and begun ones, never."""
        is_kept = is_begun or rest.startswith(KEPT)
        if is_kept or len(self._backlog) + len(rest) <= self._backlog_limit:
            self._backlog += rest
        else:
            self._num_lost += 1
            self._log_once.warn_once(
                "spool-full", f"{self.path} cannot be written and the backlog is full: steps are being lost"
            )

    def _continue_in_another_file(self, limit: int) -> None:
        size = self._num_written()
        if size < limit or self._backlog:
            return
        session, before = session_of(self.path)
        before += size
        path = self.path.with_name(f"{session}_{before:016d}.spool")
        try:
            fd = _create(path)
        except OSError:
            return  # it stays in this file, and the next line tries again
        self._close_file()
        self.path, self._fd = path, fd
        self._file_limit = None  # these lines stay together
        for line in self._opening.values():
            record = from_line(line) | {"repeated": True}
            if "segment" in record:  # an order that it carried out stays in the first file
                record |= {"order": None, "key": None, "applied": None}
            self.append(to_line(record))
        self._file_limit = limit

    def _num_written(self) -> int:
        """Bytes in the file, as far as its writes say."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def _close_file(self) -> None:
        num_written = self._num_written()
        try:
            os.close(self._fd)
        except OSError as problem:
            kept = self.path.stat().st_size if self.path.exists() else 0
            self._log_once.warn_once(
                f"close {self.path}",
                f"{self.path} may be incomplete ({problem.strerror}): {kept} of {num_written} bytes are there",
            )

    def _warn_unwritable(self, problem: OSError) -> None:
        self._log_once.warn_once("spool", f"{self.path} cannot be written ({problem.strerror}); lines wait in memory")


def _create(path: Path) -> int:
    """A new file that is locked as long as it is written, so that nobody archives it."""
    fd = open_private(str(path), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)  # NFS shares locks of readers only
    with suppress(OSError):  # a file system without locks; `archive` then leaves the file alone
        lock_file(fd, shared=True)
    return fd


# From records to lines, in the order of the calls, even if a device still computes their values.

INVALID_COUNT = "{}={} was not recorded: it must be at least 0 and less than 2**63"

ANNOUNCE_NO_CHANGE = (ARMS, EXPECT, PROBE, REMEDY, SOURCE, SKIPPED_SAMPLE_RETURNED, CHECKPOINT_UNCERTIFIED)
"""Kinds of events that announce no change of the training: the run is judged, and orders are carried out, as before."""


class RecordWriter:
    """Appends records to the spool at once, or after those that wait for a device.

    `lock` is only held during an append, which is a write to a local file; the sender never acquires it.
    """

    def __init__(self, spool: Spool, log_once: LogOnce) -> None:
        self.lock = threading.RLock()
        self.appended = threading.Event()
        """Set after each line; whoever waits for lines clears it."""
        self.measured: deque[Measured] = deque(maxlen=MAX_STEPS)
        """The newest appended steps of this branch since the last announced change; read it under `lock`."""
        self.scales_loss = False
        """True if a GradScaler leaves out the updates whose gradients are not finite."""
        self._spool = spool
        self._log_once = log_once
        self._waiting: deque[Record] = deque()
        self._more = threading.Condition(self.lock)
        self._resolver: threading.Thread | None = None
        self._closed = False

    def put(self, record: Record, is_pending: bool = False) -> None:
        """Append `record`; `is_pending`: some of its metrics are PendingScalars. The caller holds `lock`."""
        if self._closed:
            return
        if is_pending or self._waiting:
            self._waiting.append(record)
            self._more.notify_all()
            if self._resolver is None:
                self._resolver = threading.Thread(target=self._resolve_all, name="lossguard-resolver", daemon=True)
                self._resolver.start()
        else:
            self._append(record)

    def close(self, timeout: float) -> bool:
        """Wait for the device and the disk, at most `timeout` seconds. Returns whether every record is in the file."""
        deadline = time.monotonic() + timeout
        with self._more:
            while not (done := not self._waiting and self._spool.retry()) and time.monotonic() < deadline:
                self._more.wait(min(0.1, timeout))
            self._closed = True
            for record in self._waiting:
                if "metrics" not in record:  # the end of the run, an answer: no device has to compute them
                    self._append(record)
            self._more.notify_all()
            self._spool.close()
        return done

    def _append(self, record: Record) -> None:
        metrics = record.get("metrics")
        if self.scales_loss and metrics is not None:
            has_overflowed = not isfinite(metrics.get("grad_norm", 0.0)) and isfinite(metrics.get("loss", 0.0))
            if has_overflowed:
                metrics.setdefault(SKIPPED, 1)
        self._spool.append(to_line(record))
        if metrics is None:
            self._follow(record)
        elif SKIPPED not in metrics:
            self.measured.append((record["step"], metrics.get("loss"), metrics.get("grad_norm")))
        if not self.appended.is_set():  # a tenth of the cost of setting it
            self.appended.set()

    def _follow(self, record: Record) -> None:
        """Forget the steps that were discarded, or after which the training was changed."""
        if "segment" in record:
            while self.measured and self.measured[-1][0] >= record["fork_step"]:
                self.measured.pop()
        elif "event" in record and record["event"] not in ANNOUNCE_NO_CHANGE:
            self.measured.clear()

    def _resolve_all(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: bool(self._waiting) or self._closed)
                if self._closed:
                    return
                record = self._waiting[0]
            metrics = record.get("metrics")
            if metrics:
                record["metrics"] = self._resolved(metrics)
            with self._more:
                if self._closed:
                    return
                self._append(record)
                self._waiting.popleft()  # only now: later records must wait until it is in the file
                self._more.notify_all()

    def _resolved(self, metrics: dict[str, Any]) -> dict[str, Any]:
        numbers = {}
        for name, value in metrics.items():
            try:
                number = value.resolve() if isinstance(value, PendingScalar) else value
                if name in COUNTS and not is_count(number):
                    self._log_once.warn_once(f"count {name}", INVALID_COUNT.format(name, number))
                elif name != SKIPPED or number != 0:  # absent: no update was skipped
                    numbers[name] = number
            except Exception as problem:  # a device may raise anything: keep the other metrics of the step
                self._log_once.warn_once(f"metric {name}", f"{name} was not recorded: {problem}")
        return numbers
