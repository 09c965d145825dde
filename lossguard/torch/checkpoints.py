"""Checkpoints that restore a run exactly, and that are found out when they are damaged.

    <directory>/step-000000050/manifest.json     step, size and SHA-256 of each file, and what each object's state says
                               model.pt ...      the state_dict of each object
                               run.pt            random number generators and the guard's state
    <directory>/discarded/step-...               some that the last rollback left behind, for a replay of its incident

Several ranks write one together, each its part: see `sharded`. Whoever wrote it, any number of ranks can load it.

`save` copies the state to host memory and returns; a thread writes it. A checkpoint is written to a temporary folder,
flushed to the disk and renamed, so that it is there whole or not at all.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from lossguard.errors import CheckpointError, CheckpointMismatch
from lossguard.log_once import logger
from lossguard.ranks import Ranks, present
from lossguard.torch.digest import Digest, differences, digest
from lossguard.torch.files import PARTIAL, fingerprint, put_in_place, remove, sweep, write_bytes, write_state
from lossguard.torch.generators import generators, restore_generators
from lossguard.torch.ranks import TorchRanks
from lossguard.torch.retention import superfluous
from lossguard.torch.snapshot import Snapshots
from lossguard.torch.stateful import Stateful

FORMAT = 2
SHARDED = 3
"""Format of what several ranks wrote."""
MANIFEST = "manifest.json"
RUN = "run"
DISCARDED = "discarded"
KEEP_DISCARDED = 3
"""Newest checkpoints of a discarded branch that stay; behind them one in each doubling of the age, as in the line."""
NAME = re.compile(r"step-(\d+)")


class Checkpoints:
    """`objects`: what to save, e.g. model=, optimizer=, scheduler=.

    `keep`: how many of the newest checkpoints stay; behind them one stays in each doubling of the age, and the first.
    `blocking`: whether `save` returns only when the checkpoint is on the disk. Otherwise it costs the time, and the
    memory, of one copy of the state in host memory.
    `ranks`: the processes that train together; left out, those of torch.distributed where it is initialised. They must
    see the same directory, and call `save`, `settle(wait=True)`, `load` and `discard_after` at the same place.

    Raises ValueError for a bad argument and for a directory that cannot be made.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 20,
        blocking: bool = False,
        ranks: Ranks | None = None,
        **objects: Stateful,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        if RUN in objects:
            raise ValueError(f"an object cannot be called {RUN!r}: the file {RUN}.pt is ours")
        self.keep = keep
        self.blocking = blocking
        self.ranks = present() if ranks is None else ranks
        self.directory = self.ranks.share(Path(directory))
        self.objects = {name: _unwrapped(instance) for name, instance in objects.items()}
        self._pinned: frozenset[int] = frozenset()
        self._snapshots = Snapshots()
        self._writing: threading.Thread | None = None
        self._ended = False  # the thread, since `settle` was asked last
        self._problems: list[Exception] = []
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if self.ranks.rank == 0:
                sweep(self.directory)
        except OSError as problem:
            raise ValueError(f"{self.directory} cannot hold checkpoints: {problem.strerror}") from problem

    def steps(self) -> list[int]:
        """Steps whose checkpoint is complete, ascending. Whether one is intact shows when it is loaded."""
        found = (NAME.fullmatch(path.name) for path in self.directory.glob("step-*") if (path / MANIFEST).is_file())
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save all objects, the random number generators and `state` (tensors, plain values) as of before `step`.

        Waits for the save before it. Not blocking, what goes wrong with the disk is told by `settle`. Blocking, raises
        OSError when the disk takes it not, CheckpointError when an object's state could not be read back safely.
        """
        self._join()
        states = self.ranks.together(self._states, state)
        if self.blocking:
            self._write(step, states)
            return
        # Not a daemon: a process that ends finishes the checkpoint that it began.
        self._writing = threading.Thread(target=self._write_noting, args=(step, states), name="lossguard-checkpoint")
        self._writing.start()

    def settle(self, wait: bool = False) -> bool:
        """Whether a save in the background has ended since the last call; with `wait`, after it has.

        Raises what it failed with: OSError (the disk is full, or read-only) or CheckpointError.
        """
        if wait or (self._writing is not None and not self._writing.is_alive()):
            self._join()
        ended, self._ended = self._ended, False
        if self._problems:
            raise self._problems.pop(0)
        return ended

    def pin(self, steps: Iterable[int]) -> None:
        """Keep the checkpoints of these steps however old they get, until another call names others."""
        self._pinned = frozenset(steps)

    def load(self, step: int) -> dict[str, Any]:
        """Restore the newest intact checkpoint at or before `step` and return the `state` it was saved with.

        A damaged one is warned of and passed over. Raises CheckpointError when none is left, before anything changed,
        and CheckpointMismatch when an object, once loaded, is not what was saved: learning rates, moments, step counts
        and weights are compared. What an object's own `load_state_dict` raises comes through.
        """
        self._join()
        for candidate in reversed([known for known in self.ranks.share(self.steps()) if known <= step]):
            try:
                states, digests = self.ranks.together(self._read, candidate)
            except CheckpointError as problem:
                if self.ranks.rank == 0:
                    logger.warning("checkpoint of step %d is passed over: %s", candidate, problem)
                continue
            self.ranks.together(self._take, candidate, states, digests)
            return dict(states[RUN]["state"])
        raise CheckpointError(f"{self.directory} holds no intact checkpoint at or before step {step}")

    def discard_after(self, step: int) -> None:
        """Take the checkpoints of later steps out of the line: after a rollback they belong to a discarded branch.

        A few are set aside in `discarded`, in the stead of those of the rollback before: one of them holds the state in
        which the trouble began.
        """
        self._join()
        later = [known for known in self.steps() if known > step]
        if not later or self.ranks.rank > 0:
            return
        aside = self.directory / DISCARDED
        if aside.exists():
            remove(aside)
        with suppress(OSError):  # a full disk: then none is set aside
            aside.mkdir()
        kept = set(later).difference(superfluous(later, keep=KEEP_DISCARDED)) if aside.is_dir() else ()
        for each in later:
            if each in kept:
                self._path(each).rename(aside / self._path(each).name)
            else:
                remove(self._path(each))

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:09d}"

    def _join(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing, self._ended = None, True

    def _write_noting(self, step: int, states: Mapping[str, Any]) -> None:
        try:
            self._write(step, states)
        except Exception as problem:  # told in the loop's thread
            self._problems.append(problem)

    def _states(self, state: Mapping[str, Any]) -> dict[str, Any]:
        states = {name: instance.state_dict() for name, instance in self.objects.items()}
        states[RUN] = {"generators": generators(), "state": dict(state)}
        return states if self.blocking else self._snapshots.take(states)

    def _write(self, step: int, states: Mapping[str, Any]) -> None:
        partial = self.ranks.share(self.directory / f"{PARTIAL}{step}-{os.getpid()}")
        try:
            self.ranks.together(self._begin, partial)
            manifest = self._write_files(partial, states)
            self.ranks.together(self._finish, partial, step, manifest)
        finally:
            if self.ranks.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
                sweep(self.directory)

    def _begin(self, partial: Path) -> None:
        if self.ranks.rank == 0:
            sweep(self.directory)
            partial.mkdir()

    def _write_files(self, partial: Path, states: Mapping[str, Any]) -> dict[str, Any]:
        """Write all but the manifest, whose content is returned."""
        if isinstance(self.ranks, TorchRanks):
            from lossguard.torch.sharded import write_together  # loads torch.distributed.checkpoint

            objects = {name: states[name] for name in self.objects}
            files = write_together(partial, objects, states[RUN], self.ranks)
            return {"format": SHARDED, "ranks": self.ranks.size, "files": files}
        files = {f"{name}.pt": write_state(partial / f"{name}.pt", content) for name, content in states.items()}
        return {"format": FORMAT, "files": files, "objects": {name: digest(states[name]) for name in self.objects}}

    def _finish(self, partial: Path, step: int, manifest: Mapping[str, Any]) -> None:
        """Give the checkpoint its name, and delete those that it makes superfluous."""
        if self.ranks.rank > 0:
            return
        write_bytes(partial / MANIFEST, json.dumps({"step": step, **manifest}, indent=1).encode())
        put_in_place(partial, self._path(step))
        for old in superfluous(self.steps(), keep=self.keep, pinned=self._pinned):
            remove(self._path(old))

    def _take(self, step: int, states: Mapping[str, Any], digests: Mapping[str, Digest]) -> None:
        """Load the objects and generators."""
        for name, instance in self.objects.items():
            instance.load_state_dict(states[name])
        self._verify(step, digests)
        if states[RUN]["generators"] is not None:
            restore_generators(states[RUN]["generators"])

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

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, Digest]]:
        """All states of a checkpoint and their digests, by name. Raises CheckpointError when it is not as written."""
        folder = self._path(step)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            if manifest["format"] not in (FORMAT, SHARDED) or manifest["step"] != step:
                raise CheckpointError(f"it is of step {manifest['step']} in format {manifest['format']}")
            read = self._read_whole if manifest["format"] == FORMAT else self._read_sharded
            return read(folder, manifest)
        except CheckpointError:
            raise
        except Exception as problem:  # unreadable in whatever way: torch and json raise many kinds
            raise CheckpointError(f"{type(problem).__name__}: {problem}".splitlines()[0]) from problem

    def _read_whole(self, folder: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Digest]]:
        names = [*self.objects, RUN]
        _check_files(folder, manifest["files"], [f"{name}.pt" for name in names])
        states = {name: torch.load(folder / f"{name}.pt", "cpu", weights_only=True) for name in names}
        if self.ranks.size == 1:
            return states, {name: dict(manifest["objects"][name]) for name in self.objects}
        from lossguard.torch.sharded import spread

        states |= spread({name: states[name] for name in self.objects}, self.objects)
        return states, {name: digest(states[name]) for name in self.objects}

    def _read_sharded(self, folder: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Digest]]:
        from lossguard.torch.sharded import read_own, read_states

        files = manifest["files"]
        _check_files(folder, files, sorted(files)[self.ranks.rank :: self.ranks.size])  # each rank its share
        states = read_states(folder, files, self.objects)
        digests = {name: digest(state) for name, state in states.items()}
        return states | {RUN: read_own(folder, manifest["ranks"], self.ranks.rank)}, digests


def _check_files(folder: Path, files: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if fingerprint(folder / name) != files[name]:
            raise CheckpointError(f"{name} is not as it was written (checksum)")


def _unwrapped(instance: Stateful) -> Stateful:
    """What DistributedDataParallel wraps: its state then fits any number of ranks, also one."""
    return instance.module if isinstance(instance, DistributedDataParallel) else instance
