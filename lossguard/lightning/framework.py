"""What comes from the package of the Trainer: `lightning`, or `pytorch_lightning` if that is the imported one."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
else:
    imported = [name for name in ("lightning.pytorch", "pytorch_lightning") if name in sys.modules]
    installed = [name for name in ("lightning", "pytorch_lightning") if importlib.util.find_spec(name)]
    package = [*imported, *installed, "lightning"][0].replace("lightning.pytorch", "lightning")
    pytorch = importlib.import_module("lightning.pytorch" if package == "lightning" else package)
    Callback, LightningModule, Trainer = pytorch.Callback, pytorch.LightningModule, pytorch.Trainer
    GradientAccumulationScheduler = pytorch.callbacks.GradientAccumulationScheduler
    ModelCheckpoint = pytorch.callbacks.ModelCheckpoint
    TorchCheckpointIO = pytorch.plugins.io.TorchCheckpointIO
    DDPStrategy, SingleDeviceStrategy = pytorch.strategies.DDPStrategy, pytorch.strategies.SingleDeviceStrategy

__all__ = [
    "Callback",
    "DDPStrategy",
    "GradientAccumulationScheduler",
    "LightningModule",
    "ModelCheckpoint",
    "SingleDeviceStrategy",
    "TorchCheckpointIO",
    "Trainer",
]
