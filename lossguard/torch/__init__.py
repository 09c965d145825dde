"""What the SDK offers to loops written in PyTorch."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"lossguard.torch needs PyTorch ({missing.name} is not installed): pip install 'lossguard[torch]'",
        name=missing.name,
    ) from missing

from lossguard.torch.batches import Batches, MicroBatches
from lossguard.torch.checkpoints import Checkpoints
from lossguard.torch.loss import LossTerms, causal_lm_loss
from lossguard.torch.manifest import checkpoints_in
from lossguard.torch.next_token import next_token
from lossguard.torch.ranks import TorchRanks
from lossguard.torch.reduce import over_ranks, tokens_per_rank
from lossguard.torch.remedies import (
    Knob,
    clip_remedy,
    learning_rate_remedy,
    moments_remedy,
    reset_damaged_moments,
    z_loss_remedy,
)
from lossguard.torch.stateful import Stateful

__all__ = [
    "Batches",
    "Checkpoints",
    "Knob",
    "LossTerms",
    "MicroBatches",
    "Stateful",
    "TorchRanks",
    "causal_lm_loss",
    "checkpoints_in",
    "clip_remedy",
    "learning_rate_remedy",
    "moments_remedy",
    "next_token",
    "over_ranks",
    "reset_damaged_moments",
    "tokens_per_rank",
    "z_loss_remedy",
]
