"""The lock of a directory of checkpoints; with several ranks, rank 0 holds it for all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lossguard.errors import ConfigurationError
from lossguard.folder_lock import LOCK_WAIT, FolderLock, lock_folder
from lossguard.log_once import logger
from lossguard.ranks import Ranks
from lossguard.torch.files import clean_up

IN_USE = "stop that process, or keep the checkpoints of this one in another folder"


def lock_on_all_ranks(directory: Path, ranks: Ranks, *, wait: float) -> FolderLock | None:
    """Lock the directory, and remove what a process that died left incomplete. Every rank calls it.

    None on the other ranks, and where no lock file can be written. Raises ConfigurationError when another process does
    not release it within `wait` seconds.
    """
    return ranks.run_on_all(_lock, directory, ranks.rank, wait)


@contextmanager
def locked(directory: Path, ranks: Ranks) -> Iterator[None]:
    """The directory is locked in this block; every rank enters it."""
    lock = lock_on_all_ranks(directory, ranks, wait=LOCK_WAIT)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def clean_up_unless_in_use(directory: Path, rank: int) -> None:
    """An incomplete checkpoint is left behind by a process that died, or is being written by one that lives."""
    with suppress(ConfigurationError):
        lock = _lock(directory, rank, 0.0)
        if lock is not None:
            lock.release()


def _lock(directory: Path, rank: int, wait: float) -> FolderLock | None:
    if rank > 0:
        return None
    try:
        lock = lock_folder(directory, wait=wait, remedy=IN_USE)
    except OSError as problem:  # a full or read-only disk: a save will say so
        logger.warning("%s cannot be locked: %s", directory, problem.strerror)
        return None
    try:
        if lock.is_new:
            clean_up(directory)
    except BaseException:
        lock.release()
        raise
    return lock
