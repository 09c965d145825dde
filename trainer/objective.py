"""The loss that is minimised, with switches for experiments (see `python -m trainer lab`).

Shapes: B sequences, T positions, V vocabulary.
"""

import torch
from torch import Tensor

from lossguard.torch import LossTerms, causal_lm_loss
from trainer.config import ObjectiveConfig


def objective(logits_BTV: Tensor, targets_BT: Tensor, config: ObjectiveConfig, *, z_weight: float) -> LossTerms:
    """The loss to call backward on, with the cross-entropy and log Z that are always reported."""
    if not config.squared_error:
        return causal_lm_loss(logits_BTV, targets_BT, z_weight=z_weight, label_smoothing=config.label_smoothing)
    with torch.no_grad():
        terms = causal_lm_loss(logits_BTV, targets_BT, z_weight=z_weight)
    error = squared_error(logits_BTV, targets_BT)
    return LossTerms(error, terms.cross_entropy, terms.z_loss, terms.log_z, terms.log_z_max)


def squared_error(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean over tokens of the summed squared error of the probabilities: the Brier score, between 0 and 2.

    Its gradient vanishes where the model is certain and wrong, which is why it trains so badly.
    """
    probabilities_BTV = logits_BTV.float().softmax(dim=-1)
    target_BT = probabilities_BTV.gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1)
    return (probabilities_BTV.square().sum(dim=-1) - 2 * target_BT + 1).mean()
