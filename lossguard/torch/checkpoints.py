"""Checkpoints that restore a run exactly, and that are found out when they are damaged.

    <directory>/step-000000050/manifest.json     step, size and SHA-256 of each file, and what each object's state says
                               model.pt ...      the state_dict of each object
                               run.pt            random number generators and the guard's state

A checkpoint is written to a temporary folder, flushed to the disk and renamed, so that it is there whole or not at all.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lossguard.errors import CheckpointError, CheckpointMismatch
from lossguard.notices import logger
from lossguard.torch.digest import Digest, differences, digest
from lossguard.torch.generators import generators, restore_generators
from lossguard.torch.stateful import Stateful

FORMAT = 2
MANIFEST = "manifest.json"
RUN = "run"
NAME = re.compile(r"step-(\d+)")


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

        A damaged one is warned of and passed over. Raises CheckpointError when none is left, before anything changed,
        and CheckpointMismatch when an object, once loaded, is not what was saved: learning rates, moments, step counts
        and weights are compared. What an object's own `load_state_dict` raises comes through.
        """
        for candidate in reversed([known for known in self.steps() if known <= step]):
            try:
                states, digests = self._read(candidate)
            except CheckpointError as problem:
                logger.warning("checkpoint of step %d is passed over: %s", candidate, problem)
                continue
            own = states.pop(RUN)
            for name, instance in self.objects.items():
                instance.load_state_dict(states[name])
            self._verify(candidate, digests)
            restore_generators(own["generators"])
            return dict(own["state"])
        raise CheckpointError(f"{self.directory} holds no intact checkpoint at or before step {step}")

    def discard_after(self, step: int) -> None:
        """Delete the checkpoints of later steps: after a rollback they belong to a discarded branch."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self._path(later))

    def _verify(self, step: int, digests: Mapping[str, Digest]) -> None:
        """All objects are loaded by now, so that those which share state (a schedule, its optimizer) agree."""
        for name, instance in self.objects.items():
            differing = differences(digests[name], digest(instance.state_dict()))
            if differing:
                more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
                raise CheckpointMismatch(
                    f"{name} is not what the checkpoint of step {step} saved: {differing[0]}{more}; "
                    "training on would continue another run, so it stops here"
                )

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
        digests = {name: digest(states[name]) for name in self.objects}
        manifest = json.dumps({"format": FORMAT, "step": step, "files": files, "objects": digests}, indent=1)
        _write_bytes(folder / MANIFEST, manifest.encode())

    def _put_in_place(self, partial: Path, step: int) -> None:
        _flush_folder(partial)
        place = self._path(step)
        if place.exists():
            place.rename(partial.with_name(f"{partial.name}-replaced"))
        partial.rename(place)
        _flush_folder(self.directory)
        self._sweep()

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, Digest]]:
        """All states of a checkpoint and their digests, by name. Raises CheckpointError when it is not as written."""
        folder = self._path(step)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            if (manifest["format"], manifest["step"]) != (FORMAT, step):
                raise CheckpointError(f"it is of step {manifest['step']} in format {manifest['format']}")
            digests = {name: dict(manifest["objects"][name]) for name in self.objects}
            paths = {name: folder / f"{name}.pt" for name in [*self.objects, RUN]}
            for path in paths.values():
                if fingerprint(path) != manifest["files"][path.name]:
                    raise CheckpointError(f"{path.name} is not as it was written (checksum)")
            states = {name: torch.load(path, "cpu", weights_only=True) for name, path in paths.items()}
        except CheckpointError:
            raise
        except Exception as problem:  # unreadable in whatever way: torch and json raise many kinds
            raise CheckpointError(f"{type(problem).__name__}: {problem}".splitlines()[0]) from problem
        return states, digests


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
