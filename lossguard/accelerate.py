"""Accelerate: `accelerator.save_state` as checkpoints that a guard rolls back to.

    checkpoints = lossguard.accelerate.AcceleratorCheckpoints(accelerator, f"out/{run.id}")
    guard = lossguard.Guard(run, checkpoints=checkpoints)
    for step, micro_batches in guard.steps(lossguard.torch.Batches(loader, accumulate=2), until=10_000): ...

`lossguard.torch.Checkpoints` takes prepared objects too. It writes in the background and can keep states in memory, so
it is to be preferred where it can hold the state: on one process and under DDP.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lossguard.errors import CheckpointError

try:
    from accelerate import Accelerator, DistributedType
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"lossguard.accelerate needs accelerate ({missing.name} is not installed): pip install 'lossguard[accelerate]'"
    ) from missing

from lossguard.torch.checkpoints import RUN, Checkpoints
from lossguard.torch.digest import Digest, check_digests, digest
from lossguard.torch.files import fingerprint, flush, read_state, write_state
from lossguard.torch.generators import generators, restore_generators
from lossguard.torch.manifest import read_manifest

__all__ = ["AcceleratorCheckpoints", "check_strategy"]

FORMAT = "accelerate"
STATE = "state"
"""Folder inside a checkpoint that `load_state` reads."""
STRATEGIES = ("NO", "MULTI_CPU", "MULTI_GPU")
"""What accelerate's `distributed_type` may be: other strategies are not tested."""


class AcceleratorCheckpoints(Checkpoints):
    """What was prepared, and what was registered with `register_for_checkpointing`, as `save_state` writes it.

    Each checkpoint is whole or absent, has the SHA-256 of each file, and is verified after a restore. A folder of
    Lossguard's own holds them: `automatic_checkpoint_naming` and its `total_limit` neither name nor delete them.

    `keep`: how many of the newest checkpoints stay; of the older ones, one per doubling of the age and the first stay.
    A checkpoint is restored by as many processes as have written it.

    Raises ValueError for a strategy that is not supported, and for a directory that accelerate cleans up itself.
    """

    def __init__(self, accelerator: Accelerator, directory: str | os.PathLike[str], *, keep: int = 20) -> None:
        check_strategy(accelerator)
        self._accelerator = accelerator
        _refuse_folder_of_accelerate(accelerator, Path(directory))
        super().__init__(directory, keep=keep, blocking=True)

    def _states(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {RUN: {"generators": generators(), "state": dict(state), "digests": self._digests()}}

    def _write_files(self, partial: Path, states: Mapping[str, Any]) -> dict[str, Any]:
        self.ranks.run_on_all(self._save_state, partial)
        own = partial / _file_of_rank(self.ranks.rank)
        self.ranks.run_on_all(write_state, own, states[RUN])
        files = {}
        if self.ranks.rank == 0:
            written = [path for path in sorted(partial.rglob("*")) if path.is_file()]
            for path in written:
                flush(path)
            files = {path.relative_to(partial).as_posix(): fingerprint(path) for path in written}
        return {"format": FORMAT, "ranks": self.ranks.size, "files": files}

    def _save_state(self, partial: Path) -> None:
        with self._own_names():
            self._accelerator.save_state(str(partial / STATE))

    @contextmanager
    def _own_names(self) -> Iterator[None]:
        """Accelerate would choose a folder, count it, and delete older ones."""
        configuration = self._accelerator.project_configuration
        before = configuration.automatic_checkpoint_naming, configuration.iteration
        configuration.automatic_checkpoint_naming = False
        try:
            yield
        finally:
            configuration.automatic_checkpoint_naming, configuration.iteration = before

    def _read_files(self, folder: Path, step: int) -> tuple[dict[str, Any], dict[str, Digest]]:
        manifest = read_manifest(folder)
        if manifest["format"] != FORMAT or manifest["step"] != step:
            raise CheckpointError(f"its manifest names step {manifest['step']} and format {manifest['format']}")
        if manifest["ranks"] != self.ranks.size:
            raise CheckpointError(f"{manifest['ranks']} processes have written it, and these are {self.ranks.size}")
        for name in sorted(manifest["files"])[self.ranks.rank :: self.ranks.size]:  # each rank checks its share
            if not (folder / name).is_file() or fingerprint(folder / name) != manifest["files"][name]:
                raise CheckpointError(f"{name} is damaged (checksum)")
        state = read_state(folder / _file_of_rank(self.ranks.rank))
        return {RUN: state}, state["digests"]

    def _load_objects(self, step: int, states: Mapping[str, Any], digests: Mapping[str, Digest]) -> None:
        self._accelerator.load_state(str(self._path(step) / STATE))
        found = self._digests()
        for name, saved in digests.items():
            check_digests(name, step, saved, found[name])
        restore_generators(states[RUN]["generators"])

    def _digests(self) -> dict[str, Digest]:
        """Of this rank's part of all objects."""
        accelerator: Any = self._accelerator
        digests: dict[str, Digest] = {}
        for number, model in enumerate(accelerator._models):
            digests[f"model {number}"] = digest(dict(model.named_parameters()) | dict(model.named_buffers()))
        for kind in ("optimizer", "scheduler", "custom_object"):
            for number, each in enumerate(getattr(accelerator, f"_{kind}s")):
                digests[f"{kind} {number}"] = digest(each.state_dict())
        return digests


def check_strategy(accelerator: Accelerator) -> None:
    """Raise ValueError, in a sentence, for a strategy that is not supported, or is not the one that was asked for."""
    strategy = accelerator.distributed_type
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and strategy != DistributedType.FSDP:
        raise ValueError(
            f"FSDP was asked for, and accelerate runs {strategy.value} instead, without a word: start it on GPUs, or "
            "without FSDP"
        )
    if strategy.value not in STRATEGIES:
        raise ValueError(
            f"the strategy {strategy.value} is not supported: only one process and DDP are tested with accelerate; "
            "report such a run with run.log alone, without a guard"
        )


def _refuse_folder_of_accelerate(accelerator: Accelerator, directory: Path) -> None:
    configuration = accelerator.project_configuration
    if not configuration.automatic_checkpoint_naming or accelerator.project_dir is None:
        return
    automatic = Path(accelerator.project_dir, "checkpoints").absolute()
    if automatic in (directory.absolute(), *directory.absolute().parents):
        raise ValueError(f"{directory} lies in {automatic}, where accelerate deletes by itself: choose another folder")


def _file_of_rank(rank: int) -> str:
    return f"lossguard-{rank}.pt"
