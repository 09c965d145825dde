"""`lossguard.hf.watch` and `lossguard.hf.guard`, and their refusals."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import Trainer

from lossguard.checkpoints.store import CheckpointStore
from lossguard.guard.controller import Controller
from lossguard.hf.guarding import Guarding
from lossguard.hf.measuring import Measuring
from lossguard.hf.trainer_checkpoints import KEEP, HfCheckpoints, PartCheckpoints, TrainerProgress
from lossguard.run.run import NO_STEPS, Run, check_run
from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.orders import Skip
from lossguard.vocabulary.wording import plural

# Refusals, each in one sentence before the first step.

QUANTIZED = ("Params4bit", "Int8Params")
"""Classes of parameters of bitsandbytes."""


def refuse_unwatchable(trainer: Trainer, run: Run) -> None:
    """Raise TypeError for what is no Trainer or no run, and ValueError for a trainer that is watched already."""
    if not isinstance(trainer, Trainer):
        raise TypeError(f"the first argument must be a transformers.Trainer, not a {type(trainer).__name__}")
    if any(isinstance(each, Measuring) for each in trainer.callback_handler.callbacks):
        raise ValueError("this trainer is guarded or watched already: call lossguard.hf.guard or .watch once")
    check_run(run)
    if trainer.state.global_step:
        run.log_once.warn_once(
            NO_STEPS,
            f"trainer.train() has done {plural(trainer.state.global_step, 'step')} before, which are not recorded: "
            "call lossguard.hf.guard or .watch first",
        )


def _obstacles(trainer: Trainer) -> list[tuple[bool, str]]:
    """Return what a guard could not restore, or has never been tested with, and whether `trainer` has it."""
    args: Any = trainer.args
    model: Any = trainer.model
    in_order = getattr(args, "dataloader_in_order", True)
    has_own_batches = type(trainer)._prepare_inputs is not Trainer._prepare_inputs
    return [
        (args.auto_find_batch_size, "auto_find_batch_size begins the training anew, with other batches"),
        (trainer.is_deepspeed_enabled, "its model is trained by DeepSpeed, whose state is not in its checkpoints"),
        (trainer.is_fsdp_enabled, "FSDP has not been tested"),
        (bool(args.fsdp) and not trainer.is_fsdp_enabled, "fsdp is set, and the model would run without it"),
        (args.n_gpu > 1, "DataParallel has not been tested: use torchrun, or show it one GPU"),
        (not in_order, "dataloader_in_order=False gives the batches in no fixed order"),
        (
            any(type(each).__name__ in QUANTIZED for each in model.parameters()),
            "its weights are quantized, and bitsandbytes does not load them as it saves them",
        ),
        ("layerwise" in str(args.optim), f"{args.optim} keeps its state in hooks, which no checkpoint holds"),
        (
            any(type(each).__name__ == "SyncRefModelCallback" for each in trainer.callback_handler.callbacks),
            "sync_ref_model changes a second model, which no checkpoint holds",
        ),
        (has_own_batches, f"{type(trainer).__name__} makes its own batches, which no checkpoint holds"),
    ]


# `watch` and `guard`.


def watch(trainer: Trainer, run: Run, *, log_z: bool = False) -> None:
    """Log every optimizer step of `trainer` to `run`. It gets no orders. Call it before `trainer.train()`.

    `log_z`: have log Z measured by a loss that equals the model's own but for rounding (`causal_lm_loss`), and is
    faster for large vocabularies. By default nothing of the training is changed.

    Raises ValueError for a trainer that has a guard already, and where `log_z` is not possible; TypeError for what is
    no Trainer.
    """
    refuse_unwatchable(trainer, run)
    Measuring(trainer, run, TrainerProgress(trainer), log_z=log_z)


def guard(
    trainer: Trainer,
    run: Run,
    *,
    every: int = 50,
    store: str = "lossguard",
    keep: int | None = None,
    keep_bytes: int | None = None,
    memory: int = 0,
    memory_every: int = 10,
    directory: str | Path | None = None,
    log_z: bool = False,
    skips: Iterable[Skip | tuple[int, int]] = (),
    skip_samples: str = "run",
    limits: Limits | None = None,
    resume_from: int | None = None,
) -> Controller:
    """Watch the Trainer, and roll it back in place, past the batches that the collector names.

    Checkpoints are saved every `every` steps, and at least the newest `keep` (default: 20) of them stay, as far as they
    fit into `keep_bytes` (default: half of the disk's space that other files leave).
    `store="lossguard"`: in `directory` (a path or a URL; default: `output_dir/lossguard`), in the background, and with
    `memory` in host memory too (see `Checkpoints`). `store="hf"`: the Trainer's own in `output_dir`, which it can
    resume from without Lossguard as well; by default as many of them stay as `save_total_limit` says, at least 2.
    `skips`: batches that are never used. A batch is what one step uses, over all ranks and micro-batches.
    `skip_samples`: "run" (later epochs leave out the samples of skipped batches) or "once" (they use them again).
    `limits`: see `lossguard.Limits`; `resume_from`: see `lossguard.Guard`.

    Returns the controller, with which remedies are registered: `learning_rate_remedy(guard(trainer, run))`.

    Raises ValueError for a trainer that could not be restored, or was never tested, and where no checkpoint can be
    written; TypeError for what is no Trainer.
    """
    refuse_unwatchable(trainer, run)
    for is_so, why in _obstacles(trainer):
        if is_so:
            raise ValueError(f"lossguard.hf.guard cannot guard this trainer: {why}; lossguard.hf.watch can watch it")
    progress = TrainerProgress(trainer)
    if store == "hf" and memory:
        raise ValueError(f"memory={memory} needs store='lossguard': the Trainer's checkpoints are on the disk alone")
    if store == "hf" and directory is not None:
        raise ValueError(
            f"directory={str(directory)!r} needs store='lossguard': the Trainer writes into its output_dir"
        )
    if store == "hf":
        checkpoints: CheckpointStore = HfCheckpoints(trainer, progress, keep=keep, keep_bytes=keep_bytes)
    elif store == "lossguard":
        folder = directory or Path(str(trainer.args.output_dir)) / "lossguard"
        options: dict[str, Any] = {"keep": KEEP if keep is None else keep, "keep_bytes": keep_bytes}
        options |= {"memory": memory, "memory_every": memory_every}
        checkpoints = PartCheckpoints(trainer, folder, progress, **options)
    else:
        raise ValueError(f"store={store!r} must be 'lossguard' or 'hf'")
    controller = Controller(
        run,
        checkpoints=checkpoints,
        every=every,
        skips=skips,
        skip_samples=skip_samples,
        limits=limits,
        resume_from=resume_from,
    )
    Guarding(trainer, controller, progress, log_z=log_z)
    return controller
