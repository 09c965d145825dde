"""`lossguard.hf.watch` and `lossguard.hf.guard`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import Trainer

from lossguard.checkpoint_store import CheckpointStore
from lossguard.controller import Controller
from lossguard.hf.guarding import Guarding
from lossguard.hf.measuring import Measuring
from lossguard.hf.progress import Part, Progress
from lossguard.hf.supported import refuse_unguardable, refuse_unwatchable
from lossguard.hf.trainer_checkpoints import TrainerCheckpoints
from lossguard.ledger import Skip
from lossguard.limits import Limits
from lossguard.run import Run
from lossguard.torch.checkpoints import Checkpoints


def watch(trainer: Trainer, run: Run, *, log_z: bool = False) -> None:
    """Log every optimizer step of `trainer` to `run`. It gets no orders. Call it before `trainer.train()`.

    `log_z`: have log Z measured by a loss that equals the model's own but for rounding (`causal_lm_loss`), and is
    faster for large vocabularies. By default nothing of the training is changed.

    Raises ValueError for a trainer that has a guard already, and where `log_z` is not possible; TypeError for what is
    no Trainer.
    """
    refuse_unwatchable(trainer, run)
    Measuring(trainer, run, log_z=log_z)


def guard(
    trainer: Trainer,
    run: Run,
    *,
    every: int = 50,
    store: str = "lossguard",
    keep: int = 20,
    memory: int = 0,
    memory_every: int = 10,
    directory: str | Path | None = None,
    log_z: bool = False,
    skips: Iterable[Skip | tuple[int, int]] = (),
    limits: Limits | None = None,
) -> Controller:
    """As `watch`, and the training is rolled back in place, past the batches that the collector names.

    Checkpoints are saved every `every` steps, and at least `keep` of them stay. `store="lossguard"`: in `directory` (a
    path or a URL; default: `output_dir/lossguard`), in the background, and with `memory` in host memory too (see
    `Checkpoints`). `store="hf"`: the Trainer's own in `output_dir`, which it can resume from without Lossguard as well.
    `skips`: batches that are never used. A batch is what one step uses, over all ranks and micro-batches. `limits`: see
    `lossguard.Limits`.

    Returns the controller, with which remedies are registered: `learning_rate_remedy(guard(trainer, run))`.

    Raises ValueError for a trainer that could not be restored, or was never tested, and where no checkpoint can be
    written; TypeError for what is no Trainer.
    """
    refuse_unguardable(trainer, run)
    progress = Progress(trainer)
    if store == "hf" and memory:
        raise ValueError(f"memory={memory} needs store='lossguard': the Trainer's checkpoints are on the disk alone")
    if store == "hf" and directory is not None:
        raise ValueError(
            f"directory={str(directory)!r} needs store='lossguard': the Trainer writes into its output_dir"
        )
    if store == "hf":
        checkpoints: CheckpointStore = TrainerCheckpoints(trainer, progress, keep=keep)
    elif store == "lossguard":
        folder = directory or Path(str(trainer.args.output_dir)) / "lossguard"
        checkpoints = _checkpoints(trainer, folder, progress, keep=keep, memory=memory, memory_every=memory_every)
    else:
        raise ValueError(f"store={store!r} must be 'lossguard' or 'hf'")
    controller = Controller(run, checkpoints=checkpoints, every=every, skips=skips, limits=limits)
    Guarding(trainer, controller, progress, log_z=log_z)
    return controller


def _checkpoints(trainer: Trainer, folder: str | Path, progress: Progress, **options: Any) -> Checkpoints:
    objects: dict[str, Any] = {"model": Part(trainer, "model"), "optimizer": Part(trainer, "optimizer")}
    objects["scheduler"] = Part(trainer, "lr_scheduler")
    if getattr(trainer.accelerator, "scaler", None) is not None:
        objects["scaler"] = trainer.accelerator.scaler
    return Checkpoints(folder, uncompared={"trainer": progress}, **objects, **options)
