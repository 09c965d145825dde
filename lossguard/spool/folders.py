"""Folders and files that only their owner may read, and the lock of a folder that one process writes."""

import errno
import fnmatch
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from lossguard.spool.writer import this_process
from lossguard.vocabulary.errors import ConfigurationError, LogOnce

# Private folders and files: what a run records may name data, hosts and paths.

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def make_folder(path: Path) -> None:
    """Create `path` and its missing parents, for their owner alone. Existing folders keep their permissions.

    Raises OSError.
    """
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def open_private(path: str, flags: int) -> int:
    """An `opener` for `open`: a file that it creates is its owner's alone."""
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def paths_below(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield what fits a pattern in a folder and its subfolders, and is no folder itself.

    A run may write there: subfolders that vanish meanwhile, and those that may not be read, are passed over.
    """
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in fnmatch.filter(names, pattern))


# The lock of a file, and that of a folder, so that two processes do not write it at once.
#
# It is an advisory lock of the operating system (flock) on the file `lock` in the folder. The kernel releases it when
# the process ends, however it ends; NFS and most cluster file systems pass it on to other machines. Whatever locks the
# same folder in one process shares one lock. A forked child (a DataLoader worker) does not keep it.

LOCK_FILE = "lock"
LOCK_WAIT = 30.0
"""Seconds to wait for a process that is about to end: a requeued job often overlaps the one that it follows."""
POLL_SECONDS = 0.2
HELD = (errno.EWOULDBLOCK, errno.EACCES)
"""Errors of a lock that another process holds; any other one means that the file system has no locks."""

_log_once = LogOnce()
_registry_lock = threading.Lock()
_locked: dict[Path, "FolderLock"] = {}


class FolderLock:
    """A held lock; `lock_folder` makes it."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self._path = path
        self._fd = fd
        self._num_users = 1

    @property
    def is_new(self) -> bool:
        """True if nobody else in this process, nor elsewhere, uses the folder."""
        return self._fd is not None and self._num_users == 1

    def share(self) -> "FolderLock":
        """Return this lock for one more user, who releases it too."""
        self._num_users += 1
        return self

    def release(self) -> None:
        """Give it up; the last of its users unlocks the folder."""
        with _registry_lock:
            self._num_users -= 1
            if self._num_users == 0:
                _locked.pop(self._path, None)
                self.close()

    def close(self) -> None:
        """Close the file, which unlocks the folder unless another process has inherited it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def lock_file(file: int | IO[bytes], *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file, at once or not at all unless it shall `wait`. Raises OSError: one of HELD if another process
    holds the lock, any other one on a file system without locks."""
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def lock_folder(folder: Path, *, wait: float = LOCK_WAIT, remedy: str) -> FolderLock:
    """Lock `folder`, waiting at most `wait` seconds for another process to release it.

    Raises ConfigurationError, which names that process and the `remedy`, when it does not; OSError when the folder
    cannot be written. On a file system without locks it warns once and locks nothing.
    """
    if fcntl is None:
        raise ConfigurationError(f"{folder} cannot be locked on Windows: record runs on Linux or macOS, or in WSL 2")
    path = folder.resolve() / LOCK_FILE
    deadline = time.monotonic() + wait
    while (lock := _try_to_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise ConfigurationError(
                f"{folder} is in use by {_holder(path)}, which did not end within {wait:g} s "
                f"(LOSSGUARD_LOCK_WAIT): {remedy}"
            )
        _log_once.warn_once(f"wait {path}", f"waiting up to {wait:g} s for {_holder(path)}, which uses {folder}")
        time.sleep(POLL_SECONDS)
    return lock


def _try_to_lock(path: Path) -> FolderLock | None:
    """The lock; None while another process holds it."""
    with _registry_lock:
        if path in _locked:
            return _locked[path].share()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock_file(fd)
        except OSError as problem:
            os.close(fd)
            if problem.errno in HELD:
                return None
            text = f"{path.parent} cannot be locked ({problem.strerror}): make sure that only one process writes it"
            _log_once.warn_once(f"lock {path}", text)
            return FolderLock(path, None)
        with suppress(OSError):  # a full disk: then a process that waits does not learn who holds the lock
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"process": this_process(), "since": time.time()}).encode(), 0)
        lock = _locked[path] = FolderLock(path, fd)
        return lock


def _holder(path: Path) -> str:
    """The process that holds a lock, as it has described itself in the file."""
    try:
        found = json.loads(path.read_bytes())
        pid, host = str(found["process"]).split("@", 1)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(found["since"])))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"
    return f"process {pid} on {host} (since {since})"


def _forget_in_child() -> None:
    """After a fork: close what the child inherited, or the lock would outlive its process."""
    global _registry_lock
    _registry_lock = threading.Lock()  # another thread of the parent may hold the old one
    for lock in _locked.values():
        lock.close()
    _locked.clear()


os.register_at_fork(after_in_child=_forget_in_child)
