"""How the files of a checkpoint reach the disk: completely or not at all, and with fingerprints.

A folder is written under a name that begins with PARTIAL, flushed, and renamed. A folder to be replaced or deleted is
renamed first, too: a kill at any moment leaves no incomplete folder under a valid name.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import torch

from lossguard.errors import CheckpointError

PARTIAL = ".partial-"
REPLACED = ".replaced-"


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def check_files(folder: Path, files: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise CheckpointError if one of these files is not there, lies elsewhere, or has another fingerprint."""
    for name in names:
        if not os.path.isfile(folder / check_name(name)):  # a pipe would block
            raise CheckpointError(f"{name} is not a file of this checkpoint")
        if fingerprint(folder / name) != files[name]:
            raise CheckpointError(f"{name} is damaged (checksum)")


def check_name(name: str) -> str:
    """The same. Raises CheckpointError for the name of a file outside of its folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{name} is not a file of this checkpoint")
    return name


def write_state(path: Path, content: Any) -> dict[str, Any]:
    """Write a state and return its fingerprint. Raises OSError, and CheckpointError when it cannot be read back."""
    with path.open("wb") as file:
        target = _File(file)
        try:
            torch.save(content, target)  # type: ignore[arg-type]  # it only writes and flushes
        except RuntimeError as problem:
            raise target.problem or problem from None
        file.flush()
        os.fsync(file.fileno())
    check_readable(path)
    return fingerprint(path)


def check_readable(path: Path) -> None:
    """Raise CheckpointError if `read_state` would refuse the file."""
    try:
        torch.load(path, "cpu", weights_only=True, mmap=True)  # reads the structure, not the numbers
    except Exception as problem:
        raise CheckpointError(
            f"the state of {path.stem!r} contains more than tensors and plain values: it could not be restored safely"
        ) from problem


def read_state(path: Path) -> Any:
    """The state in a file, on the CPU. Unpickles nothing but tensors and plain values, so that no code in it runs."""
    with checked_sparse_tensors():
        return torch.load(path, "cpu", weights_only=True)


def checked_sparse_tensors() -> AbstractContextManager[None]:
    """Have torch refuse sparse tensors whose indices lie outside: it would write there, anywhere in memory."""
    return torch.sparse.check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]


class _File:
    """Remembers the OSError of a failed write: torch.save raises an unrelated RuntimeError instead."""

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
    """Write a file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def publish(partial: Path, place: Path) -> None:
    """Give a finished folder its name; it replaces an earlier folder of that name."""
    flush(partial)
    if os.path.lexists(place):
        place.rename(place.with_name(REPLACED + place.name))
    partial.rename(place)
    flush(place.parent)


def remove(folder: Path) -> None:
    """Delete a folder, after a rename that makes it invalid. Of a link, only the link."""
    renamed = folder.with_name(f"{PARTIAL}{folder.name}-deleted")
    folder.rename(renamed)
    _delete(renamed)


def clean_up(directory: Path) -> None:
    """Remove the incomplete folders of a process that died; restore a folder whose replacement never came."""
    for replaced in directory.glob(f"{REPLACED}*"):
        place = directory / replaced.name.removeprefix(REPLACED)
        if os.path.lexists(place):
            _delete(replaced, ignore_errors=True)
        else:
            replaced.rename(place)
    for partial in directory.glob(f"{PARTIAL}*"):
        _delete(partial, ignore_errors=True)


def _delete(path: Path, *, ignore_errors: bool = False) -> None:
    """Delete a folder, or the file or link that stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=ignore_errors)
    else:
        path.unlink()


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
