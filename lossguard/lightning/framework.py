"""The package of the Trainer, `lightning` or `pytorch_lightning`, and refusals of what cannot be guarded."""

import importlib
import importlib.util
import inspect
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from lossguard.guard.controller import SKIP_SAMPLES
from lossguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from lightning.pytorch import Callback as Callback
    from lightning.pytorch import LightningModule as LightningModule
    from lightning.pytorch import Trainer as Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging, WeightAveraging
    from lightning.pytorch.callbacks import ModelCheckpoint as ModelCheckpoint
    from lightning.pytorch.callbacks import RichProgressBar as RichProgressBar
    from lightning.pytorch.callbacks import Timer as Timer
    from lightning.pytorch.callbacks import TQDMProgressBar as TQDMProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger as TensorBoardLogger
    from lightning.pytorch.plugins import Precision as Precision
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
else:
    imported = [name for name in ("lightning.pytorch", "pytorch_lightning") if name in sys.modules]
    installed = [name for name in ("lightning", "pytorch_lightning") if importlib.util.find_spec(name)]
    package = [*imported, *installed, "lightning"][0].replace("lightning.pytorch", "lightning")
    pytorch = importlib.import_module("lightning.pytorch" if package == "lightning" else package)
    Callback, LightningModule, Trainer = pytorch.Callback, pytorch.LightningModule, pytorch.Trainer
    GradientAccumulationScheduler = pytorch.callbacks.GradientAccumulationScheduler
    ModelCheckpoint = pytorch.callbacks.ModelCheckpoint
    StochasticWeightAveraging, Timer = pytorch.callbacks.StochasticWeightAveraging, pytorch.callbacks.Timer
    WeightAveraging = getattr(pytorch.callbacks, "WeightAveraging", StochasticWeightAveraging)  # since 2.6
    RichProgressBar, TQDMProgressBar = pytorch.callbacks.RichProgressBar, pytorch.callbacks.TQDMProgressBar
    TensorBoardLogger = pytorch.loggers.TensorBoardLogger
    Precision, TorchCheckpointIO = pytorch.plugins.Precision, pytorch.plugins.io.TorchCheckpointIO
    DDPStrategy, SingleDeviceStrategy = pytorch.strategies.DDPStrategy, pytorch.strategies.SingleDeviceStrategy
    DeepSpeedStrategy = pytorch.strategies.DeepSpeedStrategy

# Refusals before the first step, each with one sentence that says what to do.

OR_WATCH = "or use lossguard.lightning.Watch(run), which reports and never rolls back"


def refuse_arguments(*, store: str, skip_samples: str, memory: int, **numbers: int | None) -> None:
    """Raise ConfigurationError for what the callback cannot be called with. Each of `numbers` is 1 or more, or None."""
    for name, given in {"memory": memory, **numbers}.items():
        minimum = 0 if name == "memory" else 1
        if given is not None and given < minimum:
            raise ConfigurationError(f"{name}={given} must be at least {minimum}")
    if store not in ("lossguard", "lightning"):
        raise ConfigurationError(f"store={store!r} must be 'lossguard' or 'lightning'")
    if skip_samples not in SKIP_SAMPLES:
        raise ConfigurationError(f"skip_samples={skip_samples!r:.80} must be 'run' or 'once'")
    if store == "lightning" and memory:
        raise ConfigurationError(f"memory={memory} needs store='lossguard': Lightning's checkpoints are files alone")


def has_whole_gradients(strategy: Any) -> bool:
    """Whether each rank has all gradients where an optimizer step begins: FSDP has shards, DeepSpeed, which is a DDP to
    Lightning, none."""
    return isinstance(strategy, SingleDeviceStrategy | DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)


def refuse_setup(trainer: Trainer, module: LightningModule, *, store: str) -> None:
    """Raise ConfigurationError for what a rollback in the middle of `fit` cannot restore."""
    strategy: Any = trainer.strategy
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if not has_whole_gradients(strategy):
        refuse(f"{type(strategy).__name__}", "it is not tested: use one device or strategy='ddp'")
    if (method := getattr(strategy, "_start_method", "popen")) != "popen":
        refuse(
            f"strategy='ddp_{method}'", "the run belongs to the process that began it: use strategy='ddp' or torchrun"
        )
    if not module.automatic_optimization:
        refuse("manual optimization", "only the module knows where a step begins: let Lightning optimize")
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        refuse("a training_step(dataloader_iter)", "it reads ahead by itself: take the batch instead")
    if any(isinstance(each, GradientAccumulationScheduler) for each in callbacks):
        refuse("GradientAccumulationScheduler", "batches change their size: use Trainer(accumulate_grad_batches=..)")
    if averaging := [each for each in callbacks if isinstance(each, StochasticWeightAveraging | WeightAveraging)]:
        refuse(type(averaging[0]).__name__, "a rollback would leave its average as it is: average in the module")
    if store == "lightning" and not isinstance(strategy.checkpoint_io, TorchCheckpointIO):
        refuse(
            f"store='lightning' with {type(strategy.checkpoint_io).__name__}",
            "only files that TorchCheckpointIO writes can be verified: use store='lossguard'",
        )
    if getattr(trainer, "reload_dataloaders_every_n_epochs", 0):
        refuse("reload_dataloaders_every_n_epochs", "the batches of a new loader have no fixed order: keep one loader")


def refuse(what: str, why: str) -> NoReturn:
    """Raise ConfigurationError, in a sentence."""
    raise ConfigurationError(f"{what} cannot be guarded, because {why}, {OR_WATCH}")
