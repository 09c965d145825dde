"""What the SDK offers to loops written in PyTorch."""

from lossguard.torch.checkpoints import Checkpoints
from lossguard.torch.loss import LossTerms, causal_lm_loss
from lossguard.torch.manifest import checkpoints_in
from lossguard.torch.next_token import next_token
from lossguard.torch.ranks import TorchRanks
from lossguard.torch.reduce import over_ranks, tokens_per_rank
from lossguard.torch.stateful import Stateful

__all__ = [
    "Checkpoints",
    "LossTerms",
    "Stateful",
    "TorchRanks",
    "causal_lm_loss",
    "checkpoints_in",
    "next_token",
    "over_ranks",
    "tokens_per_rank",
]
