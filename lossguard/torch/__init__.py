"""What the SDK offers to loops written in PyTorch."""

from lossguard.torch.checkpoints import Checkpoints
from lossguard.torch.loss import LossTerms, causal_lm_loss

__all__ = ["Checkpoints", "LossTerms", "causal_lm_loss"]
