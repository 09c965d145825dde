"""Checkpoints that restore a run exactly, and that are found out when they are damaged.

    <directory>/step-000000050/manifest.json     step, and size and SHA-256 of each file
                               model.pt ...      the state_dict of each object
                               run.pt            random number generators and the guard's state

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so that it is there whole or not at all.
"""

import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from lossguard.errors import CheckpointError
from lossguard.notices import logger

FORMAT = 1
MANIFEST = "manifest.json"
RUN = "run"
NAME = re.compile(r"step-(\d+)")


class Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Checkpoints:
    """`keep`: how many of the newest checkpoints stay. `objects`: what to save, e.g. model=, optimizer=, scheduler=.

    Raises ValueError for a bad argument and for a directory that cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 20, **objects: Stateful) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        if RUN in objects:
            raise ValueError(f"an object cannot be called {RUN!r}: the file {RUN}.pt is ours")
        self.directory = Path(directory)
        self.keep = keep
        self.objects = objects
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ValueError(f"{self.directory} cannot hold checkpoints: {problem.strerror}") from problem

    def steps(self) -> list[int]:
        """Steps whose checkpoint is complete, ascending. Whether one is intact shows when it is loaded."""
        found = (NAME.fullmatch(path.name) for path in self.directory.glob("step-*") if (path / MANIFEST).is_file())
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save all objects, the random number generators and `state` (tensors, plain values) as of before `step`.

        Raises OSError when the disk takes it not, CheckpointError when an object's state could not be read back safely.
        """
        self._sweep()
        partial = self.directory / f".partial-{step}-{os.getpid()}"
        partial.mkdir()
        try:
            self._write(partial, step, state)
            self._put_in_place(partial, step)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old))

    def load(self, step: int) -> dict[str, Any]:
        """Restore the newest intact checkpoint at or before `step` and return the `state` it was saved with.

        A damaged one is warned of and passed over. Raises CheckpointError when none is left, before anything changed.
        """
        for candidate in reversed([known for known in self.steps() if known <= step]):
            try:
                states = self._read(self._path(candidate))
            except CheckpointError as problem:
                logger.warning("checkpoint of step %d is passed over: %s", candidate, problem)
                continue
            own = states.pop(RUN)
            for name, instance in self.objects.items():
                instance.load_state_dict(states[name])
            restore_generators(own["generators"])
            return dict(own["state"])
        raise CheckpointError(f"{self.directory} holds no intact checkpoint at or before step {step}")

    def discard_after(self, step: int) -> None:
        """Delete the checkpoints of later steps: after a rollback they belong to a discarded branch."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self._path(later))

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:09d}"

    def _sweep(self) -> None:
        """Remove what a process that died while saving left behind."""
        for left in self.directory.glob(".partial-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _write(self, folder: Path, step: int, state: Mapping[str, Any]) -> None:
        states = {name: instance.state_dict() for name, instance in self.objects.items()}
        states[RUN] = {"generators": generators(), "state": dict(state)}
        files = {f"{name}.pt": _write_state(folder / f"{name}.pt", content) for name, content in states.items()}
        manifest = json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1)
        _write_bytes(folder / MANIFEST, manifest.encode())

    def _put_in_place(self, partial: Path, step: int) -> None:
        _flush_folder(partial)
        place = self._path(step)
        if place.exists():
            place.rename(partial.with_name(f"{partial.name}-replaced"))
        partial.rename(place)
        _flush_folder(self.directory)
        self._sweep()

    def _read(self, folder: Path) -> dict[str, Any]:
        """All states of a checkpoint by name. Raises CheckpointError when anything is not as it was written."""
        try:
            files = json.loads((folder / MANIFEST).read_bytes())["files"]
            paths = {name: folder / f"{name}.pt" for name in [*self.objects, RUN]}
            for path in paths.values():
                if fingerprint(path) != files[path.name]:
                    raise CheckpointError(f"{path.name} is not as it was written (checksum)")
            states = {name: torch.load(path, "cpu", weights_only=True) for name, path in paths.items()}
        except CheckpointError:
            raise
        except Exception as problem:  # unreadable in whatever way: torch and json raise many kinds
            raise CheckpointError(f"{type(problem).__name__}: {problem}".splitlines()[0]) from problem
        return states


def generators() -> dict[str, Any]:
    """States of the random number generators of Python, NumPy (if imported) and torch, as plain values and tensors."""
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = [name, keys.tolist(), *rest]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in states:
        numpy.random.set_state(tuple(states["numpy"]))
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


def fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_state(path: Path, content: Any) -> dict[str, Any]:
    with path.open("wb") as file:
        torch.save(content, file)
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


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
