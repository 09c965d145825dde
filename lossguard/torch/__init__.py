"""The parts of the SDK for loops written in PyTorch."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"lossguard.torch needs PyTorch ({missing.name} is not installed): pip install 'lossguard[torch]'",
        name=missing.name,
    ) from missing

from lossguard.checkpoints.checkpoints import Checkpoints
from lossguard.checkpoints.remote.reading import checkpoints_in
from lossguard.checkpoints.state import Stateful
from lossguard.guard.data.batches import Batches, MicroBatches
from lossguard.guard.data.random_numbers import Drawn
from lossguard.guard.gate import Gate
from lossguard.run.torch_ranks import TorchRanks
from lossguard.torch.attention import AttentionLogits, max_attention_logit
from lossguard.torch.loss import LossTerms, causal_lm_loss, loss_by_source, token_losses
from lossguard.torch.measurements import LayerGradNorms, UpdateNorm, expert_imbalance, expert_loads, next_token
from lossguard.torch.reduce import over_ranks, tokens_per_rank
from lossguard.torch.remedies import (
    Knob,
    clip_remedy,
    learning_rate_remedy,
    moments_remedy,
    reset_damaged_moments,
    z_loss_remedy,
)

__all__ = [
    "AttentionLogits",
    "Batches",
    "Checkpoints",
    "Drawn",
    "Gate",
    "Knob",
    "LayerGradNorms",
    "LossTerms",
    "MicroBatches",
    "Stateful",
    "TorchRanks",
    "UpdateNorm",
    "causal_lm_loss",
    "checkpoints_in",
    "clip_remedy",
    "expert_imbalance",
    "expert_loads",
    "learning_rate_remedy",
    "loss_by_source",
    "max_attention_logit",
    "moments_remedy",
    "next_token",
    "over_ranks",
    "reset_damaged_moments",
    "token_losses",
    "tokens_per_rank",
    "z_loss_remedy",
]
