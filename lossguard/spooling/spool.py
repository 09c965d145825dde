"""The spool: one append-only file of JSON lines per session (process). It is the queue between loop and sender.

    <LOSSGUARD_DIR>/<project>/<run id>/<session>.spool          lines, each written with one write call
                                       <session>.acknowledged   how many bytes of it the collector has
                                       rejected.jsonl           lines that the collector rejected

The name of a session is hexadecimal and sorts by time, after all existing names even when the clock was set back. A
kill -9 truncates the last line at most: a line without its newline is ignored. A power loss may lose lines (no fsync on
the path of a step).
"""

import os
import re
import time
from pathlib import Path

from lossguard.log_once import LogOnce

BACKLOG_LIMIT = 16 << 20
"""Bytes of lines that are kept in memory while the disk cannot be written."""
SESSION = re.compile("[0-9a-f]{22}")


def new_session(directory: Path) -> str:
    """A name that sorts after those in `directory`, whatever the clock shows."""
    known = [int(path.stem[:16], 16) for path in spools_in(directory) if SESSION.fullmatch(path.stem)]
    return f"{max([time.time_ns(), *(begun + 1 for begun in known)]):016x}{os.urandom(3).hex()}"


def spools_in(directory: Path) -> list[Path]:
    """The spool files of a run, oldest session first."""
    return sorted(directory.glob("*.spool"))


class Spool:
    """The writing end. Not thread-safe: `Writer` serialises."""

    def __init__(self, path: Path, log_once: LogOnce, *, backlog_limit: int = BACKLOG_LIMIT) -> None:
        self.path = path
        self._log_once = log_once
        self._backlog_limit = backlog_limit
        self._backlog = bytearray()  # the rest of a partial write, then whole lines
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def append(self, line: bytes) -> None:
        """Append `line` (with its newline). On a full disk it stays in memory, up to a limit; never raises."""
        if self._backlog:
            self._buffer(line)
            self.retry()
            return
        try:
            written = os.write(self._fd, line)
        except OSError as problem:
            written = 0
            self._warn_unwritable(problem)
        if written < len(line):
            self._buffer(line[written:])

    def retry(self) -> bool:
        """Write the backlog. Returns whether nothing is left."""
        try:
            while self._backlog:
                del self._backlog[: os.write(self._fd, self._backlog[: 1 << 20])]
        except OSError as problem:
            self._warn_unwritable(problem)
        else:
            if self._log_once.reset("spool"):
                self._log_once.warn_once("spool-again", f"{self.path} can be written again; the backlog was not lost")
        return not self._backlog

    def close(self) -> None:
        os.close(self._fd)

    def _buffer(self, rest: bytes) -> None:
        if len(self._backlog) + len(rest) <= self._backlog_limit:
            self._backlog += rest
        else:
            self._log_once.warn_once(
                "spool-full", f"{self.path} cannot be written and the backlog is full: steps are being lost"
            )

    def _warn_unwritable(self, problem: OSError) -> None:
        self._log_once.warn_once("spool", f"{self.path} cannot be written ({problem.strerror}); lines wait in memory")
