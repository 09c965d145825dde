"""The writing end of the journal: what trackers are given, one JSON line per call, in the order of the calls.

    {"step": 7, "time": 1.5, "values": {"train/loss": 2.5}, "tracker": "wandb", "complete": true}
    {"tracker": "wandb", "project": "gpt", "name": "base", "config": {..}, "tags": [..]}
    {"step": 7, "time": 1.5, "values": {"loss": 2.5}, "tracker": "text"}        read from a printed line, by the relay
    {"tracker": "text", "what": "lines of nanoGPT", "config": {..}, "facts": {..}}
    {"script_reports": 4711}        the process 4711 calls lossguard.init
    {"ended": null}                 the interpreter exits; or the type of an uncaught exception

NaN and infinities stand there as Python's JSON writes them. Each line is one write, so kill -9 loses none. The first
process that logs owns the journal: it holds a lock on the file as long as it lives. The relay writes beside it.
"""

import atexit
import fcntl
import json
import os
import sys
import threading
import time
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossguard.run.process_rank import rank_of as rank_of
else:  # the processes of a launched command cannot import it: its file is run here
    _path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "run", "process_rank.py")
    _rule = ModuleType("process_rank")
    SourceFileLoader("process_rank", _path).exec_module(_rule)
    rank_of = _rule.rank_of

BACKLOG_LIMIT = 4 << 20
"""Bytes of lines that are kept in memory while the disk cannot be written."""
TEXT = "text"
"""Tracker of entries that were read from printed lines."""
HELD = (11, 13)
"""EAGAIN and EACCES: another process holds the lock. Any other error means that the file system has no locks."""

encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=str).encode

_said: set[str] = set()


def warn_once(message: str) -> None:
    """Print `message` on stderr, unless this process has printed it before. Never raises."""
    if message not in _said:
        _said.add(message)
        with suppress(Exception):  # stderr may be closed, or something of the program's own
            print(f"lossguard: {message}", file=sys.stderr, flush=True)


class Journal:
    """Opened by the first line; the processes that may not write it drop their lines."""

    def __init__(self, path: str, *, is_shared: bool = False) -> None:
        """`is_shared`: write beside the process that owns the journal."""
        self._path = path
        self._is_shared = is_shared
        self._fd: int | None = None
        self._stands_back = False
        self._backlog = bytearray()
        self._lock = threading.Lock()  # of the backlog
        os.register_at_fork(after_in_child=self._forget_in_child)

    @property
    def is_written(self) -> bool:
        """True if lines of this process are wanted; the first call claims the journal."""
        return self._fd is not None or self._claim()

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry, if this process owns the journal."""
        self.write_text(encode(entry))

    def write_text(self, text: str) -> None:
        """Append an entry that is JSON already. A full disk is said once; the lines then wait in memory."""
        if self._fd is None and not self._claim():
            return
        line = text.encode("utf-8", "replace") + b"\n"
        if not self._backlog:
            line = line[self._written(line) :]
            if not line:
                return
        with self._lock:
            if len(self._backlog) + len(line) <= BACKLOG_LIMIT:
                self._backlog += line
            else:
                warn_once(f"{self._path} cannot be written and the backlog is full: scalars are being lost")
            # A copy is written: while another thread writes, a fork could not clear the backlog itself.
            del self._backlog[: self._written(bytes(self._backlog))]

    def leave_to_script(self) -> None:
        """This process reports the run itself with the SDK: the launcher gives it the run's folder."""
        was_written = self._fd is not None
        self._stands_back = True
        if rank_of(os.environ) == 0:
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.write(fd, encode({"script_reports": os.getpid()}).encode() + b"\n")
                os.close(fd)
            except OSError as problem:
                self._warn(problem)
        if was_written:
            self._close()

    def _written(self, data: bytes) -> int:
        """Write `data` as far as possible; return the number of bytes."""
        assert self._fd is not None
        try:
            return os.write(self._fd, data)
        except OSError as problem:
            self._warn(problem)
            return 0

    def _claim(self) -> bool:
        """Become the process that writes the journal, if none is."""
        if self._stands_back:
            return False
        self._stands_back = True  # unless all of this succeeds
        if rank_of(os.environ) > 0:
            return False
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            self._warn(problem)
            return False
        try:
            if not self._is_shared:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in HELD:
                os.close(fd)
                warn_once(
                    f"process {os.getpid()} logs metrics too, and another process of this command did so first: "
                    "only that one is recorded"
                )
                return False
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # a line of an earlier owner that was cut off
            os.write(fd, b"\n")
        self._fd, self._stands_back = fd, False
        atexit.register(self.close)
        return True

    def _warn(self, problem: OSError) -> None:
        warn_once(f"{self._path} cannot be written ({problem.strerror}): training goes on, and lines wait in memory")

    def close(self) -> None:
        """Say that the interpreter exits, and close the file."""
        if self._fd is not None:
            if not self._is_shared:
                uncaught = getattr(sys, "last_type", None)
                self.write({"ended": uncaught and uncaught.__name__, "time": time.time()})
            if self._backlog:
                num_lines = self._backlog.count(b"\n")
                warn_once(f"{self._path} cannot be written: the lines in memory are lost ({num_lines})")
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _forget_in_child(self) -> None:
        """After a fork: the parent goes on writing; its lock must not live on in a DataLoader's worker."""
        self._lock = threading.Lock()
        self._backlog.clear()
        if self._fd is not None:
            atexit.unregister(self.close)
            self._close()
