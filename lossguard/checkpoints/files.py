"""The files of a checkpoint, written completely or not at all, its sealed manifest, and which checkpoints stay."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch

from lossguard.vocabulary.errors import CheckpointError

# Files and folders.
#
# A folder is written under a name that begins with PARTIAL, flushed, and renamed. A folder to be replaced or deleted is
# renamed first, too: a kill at any moment leaves no incomplete folder under a valid name.

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
    """Return the name. Raises CheckpointError for the name of a file outside of its folder."""
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
    flush(path)
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
    path.write_bytes(content)
    flush(path)


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


# The manifest: the last file that is written, sealed with a checksum of itself.
#
# A folder is a checkpoint if it has the name of its step and holds a manifest. Whatever else lies beside it is ignored.

MANIFEST = "manifest.json"
DISCARDED = "discarded"
"""The folder of what the last rollback discarded."""
UNCERTIFIED = "uncertified"
"""The folder of checkpoints that are never restored, and the entry of a manifest with the reason."""


def folder_name(step: int) -> str:
    """The name of the folder that holds the checkpoint of `step`."""
    return f"step-{step:09d}"


def listed(directory: Path) -> list[str]:
    """The names in a folder; none where it is not there yet. Raises OSError, which Path.glob hides."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders_in(directory: Path) -> dict[int, Path]:
    """Step -> folder of each complete checkpoint in `directory`, ascending; also of links to such folders."""
    paths = {int(name[5:]): directory / name for name in listed(directory) if re.fullmatch("step-[0-9]+", name)}
    return {
        step: path
        for step, path in sorted(paths.items())
        if path.name == folder_name(step) and os.path.isfile(path / MANIFEST)
    }


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest, and flush it to the disk."""
    write_bytes(folder / MANIFEST, encoded(content))


def encoded(content: Mapping[str, Any]) -> bytes:
    """A manifest with its checksum, as it is written."""
    return _sealed(json.dumps(content, indent=1).encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a manifest. Raises CheckpointError if it is damaged, ValueError if it is not JSON, and OSError."""
    return decoded((folder / MANIFEST).read_bytes())


def decoded(written: bytes) -> dict[str, Any]:
    """Undo `encoded`. Raises CheckpointError if it is damaged, and ValueError if it is not JSON."""
    content: dict[str, Any] = json.loads(written)
    if _sealed(written[:-_SEAL_BYTES] + _END) == written:
        del content["sha256"]
        return content
    if "sha256" not in content and "format" in content:
        raise CheckpointError(f"{MANIFEST} is of a pre-release of Lossguard; continue with the version that wrote it")
    raise CheckpointError(f"{MANIFEST} is damaged (checksum)")


_END = b"\n}"


def _sealed(content: bytes) -> bytes:
    """A JSON object that ends with _END, with its own SHA-256 as its last value."""
    return content.removesuffix(_END) + b',\n "sha256": "%s"' % sha256(content).hexdigest().encode() + _END


_SEAL_BYTES = len(_sealed(_END))


# Retention: all of the newest, and ever fewer of the older ones. So deep rollbacks are possible, and the disk stays
# small.


def steps_to_delete(
    steps: Sequence[int], *, keep: int, most: int | None = None, pinned: Collection[int] = ()
) -> list[int]:
    """Return the `steps` (ascending) to delete: not the newest `keep`, nor those pinned or needed for their age.

    The newest `keep` span D steps. Of the older ones, the oldest aged D to 2 D stays, the oldest aged 2 D to 4 D, and
    so on. So the very first stays for ever, and a run of n steps keeps about keep + log2(n / D).

    `most`: how many may stay. If they would be more, fewer of the newest count as such, and in the end the oldest go;
    the newest one and those that are pinned stay in any case.
    """
    for num in range(keep, 0, -1):
        deleted = _too_old(steps, num, pinned)
        excess = 0 if most is None else len(steps) - len(deleted) - most
        if excess <= 0:
            return deleted
    rest = [step for step in steps[:-1] if step not in deleted and step not in pinned]
    return sorted(deleted + rest[:excess])


def _too_old(steps: Sequence[int], keep: int, pinned: Collection[int]) -> list[int]:
    newest, older = steps[-keep:], steps[:-keep]
    span = max(1, newest[-1] - newest[0]) if newest else 1
    oldest_of_age: dict[int, int] = {}
    for step in older:
        oldest_of_age.setdefault(_doublings(steps[-1] - step, span), step)
    staying = {*oldest_of_age.values(), *pinned}
    return [step for step in older if step not in staying]


def num_kept(num: int, *, keep: int) -> int:
    """Return how many of `num` checkpoints at equal intervals stay."""
    return num if num <= keep else keep + 1 + _doublings(num - 1, max(1, keep - 1))


def _doublings(age: int, span: int) -> int:
    """0 for ages up to 2 spans, 1 up to 4, 2 up to 8, ..."""
    return max(0, (-(-age // span) - 1).bit_length() - 1)
