"""Accelerate: `accelerator.save_state` as checkpoints that a guard rolls back to.

    checkpoints = lossguard.accelerate.AcceleratorCheckpoints(accelerator, f"out/{run.id}")
    guard = lossguard.Guard(run, checkpoints=checkpoints)
    for step, micro_batches in guard.steps(lossguard.torch.Batches(loader, accumulate=2), until=10_000): ...

`lossguard.torch.Checkpoints` takes prepared objects too. It writes in the background and can keep states in memory, so
it is to be preferred where it can hold the state: on one process and under DDP.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    from accelerate import Accelerator, DistributedType
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"lossguard.accelerate needs accelerate ({missing.name} is not installed): pip install 'lossguard[accelerate]'"
    ) from missing

from lossguard.checkpoints.framework_checkpoints import FrameworkCheckpoints
from lossguard.checkpoints.remote.files import is_remote, local_path
from lossguard.checkpoints.state import Digest, digest

__all__ = ["AcceleratorCheckpoints", "check_strategy"]

STATE = "state"
"""Folder inside a checkpoint that `load_state` reads."""
STRATEGIES = ("NO", "MULTI_CPU", "MULTI_GPU")
"""Values of accelerate's `distributed_type` that are supported: other strategies are not tested."""


class AcceleratorCheckpoints(FrameworkCheckpoints):
    """Checkpoints of all prepared and registered objects (`register_for_checkpointing`), written by `save_state`.

    Each checkpoint is whole or absent, has the SHA-256 of each file, and is verified after a restore. A folder of
    Lossguard's own holds them: `automatic_checkpoint_naming` and its `total_limit` neither name nor delete them.

    `keep`: how many of the newest checkpoints stay; of the older ones, one per doubling of the age and the first stay.
    `keep_bytes`: the space for them, by default half of the disk's space that other files leave.
    `left_out`: objects that were not prepared or registered on purpose (see `lossguard.torch.Checkpoints`).
    A checkpoint is restored by as many processes as have written it.

    Raises ValueError for a strategy that is not supported, and for a directory that accelerate cleans up itself.
    """

    formats = ("accelerate",)

    def __init__(
        self,
        accelerator: Accelerator,
        directory: str | os.PathLike[str],
        *,
        keep: int = 20,
        keep_bytes: int | None = None,
        left_out: Iterable[Any] = (),
    ) -> None:
        check_strategy(accelerator)
        self._accelerator: Any = accelerator
        is_automatic = accelerator.project_configuration.automatic_checkpoint_naming
        if is_automatic and accelerator.project_dir is not None and not is_remote(directory):
            folder, automatic = local_path(directory), Path(accelerator.project_dir, "checkpoints").absolute()
            if automatic in (folder.absolute(), *folder.absolute().parents):
                raise ValueError(
                    f"{folder} lies in {automatic}, where accelerate deletes by itself: choose another folder"
                )
        super().__init__(directory, keep=keep, keep_bytes=keep_bytes, blocking=True, left_out=left_out)

    def _saved_objects(self) -> list[Any]:
        of = self._accelerator
        return [*of._models, *of._optimizers, *of._schedulers, *of._custom_objects, of.scaler]

    def _with_arguments(self, names: Sequence[str]) -> str:
        return f"accelerator.register_for_checkpointing({', '.join(names)})"

    def _write_by_framework(self, folder: Path) -> None:
        configuration = self._accelerator.project_configuration
        before = configuration.automatic_checkpoint_naming, configuration.iteration
        configuration.automatic_checkpoint_naming = False  # it would choose a folder, count it, and delete older ones
        try:
            self._accelerator.save_state(str(folder / STATE))
        finally:
            configuration.automatic_checkpoint_naming, configuration.iteration = before

    def _load_states(self, step: int, states: Mapping[str, Any]) -> None:
        assert self._restored_from is not None
        self._accelerator.load_state(str(self._restored_from.folder / STATE))

    def _parts(self) -> Iterator[Any]:
        return iter([*self._accelerator._models, *self._accelerator._optimizers])

    def _certified_parts(self, states: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {f"part {number}": (each, each.state_dict()) for number, each in enumerate(self._parts())}

    def _digests(self) -> dict[str, Digest]:
        digests: dict[str, Digest] = {}
        for number, model in enumerate(self._accelerator._models):
            digests[f"model {number}"] = digest(dict(model.named_parameters()) | dict(model.named_buffers()))
        for kind in ("optimizer", "scheduler", "custom_object"):
            for number, each in enumerate(getattr(self._accelerator, f"_{kind}s")):
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
            f"the strategy {strategy.value} is not supported, only one process and DDP: use run.log without a guard"
        )
