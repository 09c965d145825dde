"""A folder of checkpoints on a disk that all ranks see, and its lock.

<directory>/step-000000050/..., discarded/step-..., uncertified/step-...

A checkpoint is written under another name, flushed, and renamed. One process at a time (or one group of ranks) writes
the folder; its lock is a file in it.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lossguard.checkpoints.files import (
    DISCARDED,
    PARTIAL,
    UNCERTIFIED,
    check_files,
    clean_up,
    folder_name,
    folders_in,
    publish,
    read_manifest,
    remove,
    write_manifest,
)
from lossguard.run.ranks import Ranks
from lossguard.spool.folders import LOCK_WAIT, FolderLock, lock_folder
from lossguard.vocabulary.errors import CheckpointError, ConfigurationError, logger
from lossguard.vocabulary.states import Tier

KEEP_UNCERTIFIED = 3
"""Maximum number of uncertified checkpoints that are kept, for a person who looks for the cause."""

# The lock; with several ranks, rank 0 holds it for all.

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


class ReadFolder:
    """A checkpoint that is being read. All its files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_compared = False  # by all ranks together

    def manifest(self) -> dict[str, Any]:
        """Raises CheckpointError if it is damaged, ValueError if it is not JSON, and OSError."""
        return read_manifest(self.folder)

    def fetch(self, files: Mapping[str, Any], names: Collection[str]) -> None:
        """Have these files in `folder`. Raises CheckpointError if one is not intact."""
        if not self._is_compared:
            check_files(self.folder, files, names)

    def check_all(self, files: Mapping[str, Any], ranks: Ranks) -> None:
        """Compare all files of the checkpoint, which the ranks divide among them. Raises CheckpointError."""
        check_files(self.folder, files, share_of(files, ranks.rank, ranks.size))
        self._is_compared = True


class LocalFolder:
    """The place of `Checkpoints` on a disk. Every rank calls every method, unless it says otherwise."""

    tier = Tier.DISK
    all_ranks_see_it = True
    """True if a rank sees what another one is writing."""

    def __init__(self, path: Path, ranks: Ranks) -> None:
        """Raises ValueError for a folder that cannot be created."""
        self.path, self._ranks = path, ranks
        self._lock: FolderLock | None = None  # on rank 0
        self._is_locked = False  # the same on all ranks
        try:
            path.mkdir(parents=True, exist_ok=True)
            clean_up_unless_in_use(path, ranks.rank)
        except OSError as problem:
            raise ValueError(f"{path} cannot hold checkpoints: {problem.strerror}") from problem

    def __str__(self) -> str:
        return str(self.path)

    def folder(self, step: int) -> Path:
        """Return the folder of the checkpoint of `step`."""
        return self.path / folder_name(step)

    def lock(self, *, wait: float) -> None:
        """See `Checkpoints.lock`."""
        if not self._is_locked:
            self._lock = lock_on_all_ranks(self.path, self._ranks, wait=wait)
            self._is_locked = True

    def unlock(self) -> None:
        """See `Checkpoints.unlock`."""
        lock, self._lock, self._is_locked = self._lock, None, False
        if lock is not None:
            lock.release()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return list(folders_in(self.path))

    def check(self, step: int) -> str | None:
        """See `Checkpoints.check`."""
        folder = self.folder(step)
        try:
            files = read_manifest(folder)["files"]
            damaged = [name for name, written in files.items() if _size(folder / name) != written["bytes"]]
        except FileNotFoundError:
            return f"{folder} is no longer there"
        except (CheckpointError, OSError, ValueError, LookupError, TypeError) as problem:
            return f"{folder} cannot be read: {problem}"
        return f"{folder / damaged[0]} is missing or has another size than it was written with" if damaged else None

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A folder for the files of a new checkpoint; it is gone afterwards unless `publish` has named it."""
        with locked(self.path, self._ranks):
            partial: Path = self._ranks.broadcast(self.path / f"{PARTIAL}{step}-{os.getpid()}")
            try:
                self._ranks.ask_rank_0(partial.mkdir)
                yield partial
            finally:
                if self._ranks.rank == 0:
                    shutil.rmtree(partial, ignore_errors=True)
                    clean_up(self.path)

    def publish(self, partial: Path, step: int, manifest: dict[str, Any]) -> None:
        """Give the checkpoint its name, as the last thing. Only rank 0 calls it."""
        write_manifest(partial, manifest)
        publish(partial, self.folder(step))

    def set_aside(self, partial: Path, step: int, manifest: dict[str, Any]) -> None:
        """Keep a checkpoint that is never restored, beside the others; later ones belong to a discarded branch.

        Only rank 0 calls it.
        """
        aside = self.path / UNCERTIFIED
        aside.mkdir(exist_ok=True)
        clean_up(aside)
        write_manifest(partial, manifest)
        publish(partial, aside / folder_name(step))
        kept = [known for known in folders_in(aside) if known <= step][-KEEP_UNCERTIFIED:]
        for known, folder in folders_in(aside).items():
            if known not in kept:
                remove(folder)

    def delete(self, steps: Sequence[int]) -> None:
        """Delete the checkpoints of these steps. Only rank 0 calls it."""
        for step in steps:
            remove(self.folder(step))

    def discard(self, steps: Sequence[int], moved: Collection[int]) -> None:
        """Delete the checkpoints of these steps, and move some of them in place of those that were moved before."""
        if not steps or self._ranks.rank > 0:
            return
        with locked(self.path, Ranks()):  # rank 0 alone
            discarded = self.path / DISCARDED
            if os.path.lexists(discarded):
                remove(discarded)
            with suppress(OSError):  # a full disk: then all are deleted
                discarded.mkdir()
            for step in steps:
                if step in moved and discarded.is_dir():
                    self.folder(step).rename(discarded / self.folder(step).name)
                else:
                    remove(self.folder(step))

    @contextmanager
    def reading(self, step: int) -> Iterator[ReadFolder]:
        """The checkpoint of `step`, until the objects have loaded it."""
        yield ReadFolder(self.folder(step))


def share_of(names: Collection[str], rank: int, num_ranks: int) -> list[str]:
    """Which of the files this rank compares. What a rank has written is what it reads most likely: not twice then."""
    writers = {name: int(match[1] or match[2]) for name in sorted(names) if (match := _OF_RANK.fullmatch(name))}
    own = [name for name, writer in writers.items() if writer % num_ranks == rank]
    return own + sorted(set(names) - writers.keys())[rank::num_ranks]


_OF_RANK = re.compile(r"__(\d+)_\d+\.distcp|(?:rank|tensors)-(\d+)\.(?:pt|json)")
"""The names that `sharded.checkpoint` gives to the files of one rank."""


def _size(path: Path) -> int | None:
    return os.path.getsize(path) if os.path.isfile(path) else None
