"""`lossguard.hf.watch` and `lossguard.hf.guard`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import Trainer

from lossguard.controller import Controller
from lossguard.hf.guarding import Guarding
from lossguard.hf.measuring import Measuring
from lossguard.hf.progress import Part, Progress
from lossguard.hf.supported import refuse_unguardable, refuse_unwatchable
from lossguard.ledger import Skip
from lossguard.run import Run
from lossguard.torch.checkpoints import Checkpoints


def watch(trainer: Trainer, run: Run, *, log_z: bool = False) -> None:
    """Log every optimizer step of `trainer` to `run`. It gets no orders. Call it before `trainer.train()`.

    `log_z`: have log Z measured by a loss that equals the model's own but for rounding (`causal_lm_loss`), and is
    faster for large vocabularies. By default nothing of the training is changed.

    Raises ValueError for a trainer that has a guard already, and where `log_z` is not possible.
    """
    refuse_unwatchable(trainer)
    Measuring(trainer, run, log_z=log_z)


def guard(
    trainer: Trainer,
    run: Run,
    *,
    every: int = 50,
    keep: int = 20,
    memory: int = 0,
    memory_every: int = 10,
    log_z: bool = False,
    skips: Iterable[Skip] = (),
) -> Controller:
    """As `watch`, and the training is rolled back in place, past the batches that the collector names.

    Checkpoints are saved every `every` steps to `output_dir/lossguard`; see `Checkpoints` for `keep`, `memory` and
    `memory_every`. `skips`: batches that are never used. The batches of a step have one index, over all ranks and
    micro-batches. Remedies are registered with the controller that is returned.

    Raises ValueError for a trainer that could not be restored, or was never tested, and where no checkpoint can be
    written.
    """
    refuse_unguardable(trainer)
    progress = Progress(trainer)
    objects: dict[str, Any] = {"model": Part(trainer, "model"), "optimizer": Part(trainer, "optimizer")}
    objects["scheduler"] = Part(trainer, "lr_scheduler")
    if getattr(trainer.accelerator, "scaler", None) is not None:
        objects["scaler"] = trainer.accelerator.scaler
    checkpoints = Checkpoints(
        Path(str(trainer.args.output_dir)) / "lossguard",
        keep=keep,
        memory=memory,
        memory_every=memory_every,
        uncompared={"trainer": progress},
        **objects,
    )
    controller = Controller(run, checkpoints=checkpoints, every=every, skips=skips)
    Guarding(trainer, controller, progress, log_z=log_z)
    return controller
