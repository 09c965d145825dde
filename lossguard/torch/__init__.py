"""What the SDK offers to loops written in PyTorch."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"lossguard.torch needs PyTorch ({missing.name} is not installed): pip install 'lossguard[torch]'",
        name=missing.name,
    ) from missing

from lossguard.torch.attention import AttentionLogits, max_attention_logit
from lossguard.torch.batches import Batches, MicroBatches
from lossguard.torch.checkpoints import Checkpoints
from lossguard.torch.experts import expert_imbalance, expert_loads
from lossguard.torch.gate import Gate
from lossguard.torch.layer_norms import LayerGradNorms
from lossguard.torch.loss import LossTerms, causal_lm_loss
from lossguard.torch.next_token import next_token
from lossguard.torch.place import checkpoints_in
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
from lossguard.torch.source_loss import loss_by_source, token_losses
from lossguard.torch.stateful import Stateful
from lossguard.torch.update_norm import UpdateNorm

__all__ = [
    "AttentionLogits",
    "Batches",
    "Checkpoints",
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
