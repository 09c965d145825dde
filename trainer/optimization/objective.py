"""The loss that is minimised, with switches for experiments (see `python -m trainer lab`).

Shapes: B sequences, T positions, V vocabulary.
"""

from dataclasses import replace

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
    return replace(terms, loss=error)


def squared_error(logits_BTV: Tensor, targets_BT: Tensor, ignore_index: int = -100) -> Tensor:
    """Mean over tokens of the summed squared error of the probabilities: the Brier score, between 0 and 2.

    Tokens whose target is `ignore_index` do not count; it is 0 if none does. Its gradient vanishes where the model is
    certain and wrong, which is why it trains so badly.
    """
    counted_BT = targets_BT != ignore_index
    probabilities_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32)).softmax(dim=-1)
    target_BT = probabilities_BTV.gather(-1, targets_BT.where(counted_BT, 0).unsqueeze(-1)).squeeze(-1)
    error_BT = probabilities_BTV.square().sum(dim=-1) - 2 * target_BT + 1
    return error_BT.where(counted_BT, 0.0).sum() / counted_BT.sum().clamp(min=1)
