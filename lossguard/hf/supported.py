"""What cannot be guarded or watched, each in one sentence before the first step."""

from typing import Any

from transformers import Trainer

from lossguard.hf.measuring import Measuring
from lossguard.run import Run, check_run


def refuse_unwatchable(trainer: Trainer, run: Run) -> None:
    """Raise TypeError for what is no Trainer or no run, and ValueError for a trainer that is watched already."""
    if not isinstance(trainer, Trainer):
        raise TypeError(f"the first argument must be a transformers.Trainer, not a {type(trainer).__name__}")
    if any(isinstance(each, Measuring) for each in trainer.callback_handler.callbacks):
        raise ValueError("this trainer is guarded or watched already: call lossguard.hf.guard or .watch once")
    check_run(run)


def refuse_unguardable(trainer: Trainer, run: Run) -> None:
    """Raise ValueError for what a guard could not restore, or has never been tested with; as `refuse_unwatchable`."""
    refuse_unwatchable(trainer, run)
    for is_so, why in _obstacles(trainer):
        if is_so:
            raise ValueError(f"lossguard.hf.guard cannot guard this trainer: {why}; lossguard.hf.watch can watch it")


def _obstacles(trainer: Trainer) -> list[tuple[bool, str]]:
    args: Any = trainer.args
    in_order = getattr(args, "dataloader_in_order", True)
    has_own_batches = type(trainer)._prepare_inputs is not Trainer._prepare_inputs
    return [
        (args.auto_find_batch_size, "auto_find_batch_size begins the training anew, with other batches"),
        (trainer.is_deepspeed_enabled, "its model is trained by DeepSpeed, whose state is not in its checkpoints"),
        (trainer.is_fsdp_enabled, "FSDP has not been tested"),
        (bool(args.fsdp) and not trainer.is_fsdp_enabled, "fsdp is set, and the model would run without it"),
        (args.n_gpu > 1, "DataParallel has not been tested: use torchrun, or show it one GPU"),
        (not in_order, "dataloader_in_order=False gives the batches in no fixed order"),
        (has_own_batches, f"{type(trainer).__name__} makes its own batches, which no checkpoint holds"),
    ]
