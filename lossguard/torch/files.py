"""How the files of a checkpoint reach the disk: whole or not at all, and with fingerprints.

A folder is written under a name that begins with PARTIAL, flushed, and renamed. A folder that is to be replaced or
deleted is first renamed too: no kill at any moment leaves half a folder under a good name.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import IO, Any

import torch

from lossguard.errors import CheckpointError

PARTIAL = ".partial-"
REPLACED = ".replaced-"


def fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def write_state(path: Path, content: Any) -> dict[str, Any]:
    """Write a state and return its fingerprint. Raises OSError, and CheckpointError when it could not be read back."""
    with path.open("wb") as file:
        disk = _Disk(file)
        try:
            torch.save(content, disk)  # type: ignore[arg-type]  # it only writes and flushes
        except RuntimeError as problem:
            raise disk.problem or problem from None
        file.flush()
        os.fsync(file.fileno())
    try:
        torch.load(path, "cpu", weights_only=True, mmap=True)  # reads the structure, not the numbers
    except Exception as problem:
        message = (
            f"the state of {path.stem!r} holds more than tensors and plain values, so it could not be restored safely"
        )
        raise CheckpointError(message) from problem
    return fingerprint(path)


class _Disk:
    """Remembers what the disk refused: torch.save tells its own confusion instead."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.problem: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as problem:
            self.problem = self.problem or problem
            raise

    def flush(self) -> None:
        self._file.flush()


def write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(partial: Path, place: Path) -> None:
    """Give a finished folder its name, in the stead of an earlier one."""
    _flush(partial)
    if place.exists():
        place.rename(place.with_name(REPLACED + place.name))
    partial.rename(place)
    _flush(place.parent)


def remove(folder: Path) -> None:
    doomed = folder.with_name(f"{PARTIAL}{folder.name}-deleted")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def sweep(directory: Path) -> None:
    """Clear what a process that died has left: half a folder goes, and one whose successor did not come returns."""
    for replaced in directory.glob(f"{REPLACED}*"):
        place = directory / replaced.name.removeprefix(REPLACED)
        if place.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(place)
    for left in directory.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
