"""The held-out loss of a model, with its standard error.

Shapes: B sequences, T positions, V vocabulary.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lossguard.torch import token_losses
from trainer.data.held_out import HeldOut
from trainer.data.windows import PADDING

BATCH_TOKENS = 4096
"""Tokens of a batch, whatever the recipe's batch size: with it the rounding would change."""


def perplexity(loss: float) -> float:
    """exp(loss): as uncertain as a choice among so many equally likely tokens. Infinite if it is no float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """The result of an evaluation: the sums, in nats, and the numbers of the targets of each document."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean in nats per token: over all tokens, so that a padded window weighs as much as it holds."""
        return float(self.sums.sum() / self.counts.sum())

    def per_document(self) -> list[float]:
        """A loss of each document such that their plain mean is `mean`."""
        losses: list[float] = (self.sums / self.counts.mean()).tolist()
        return losses

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, over documents as clusters; NaN for a single one.

        Tokens of a document are not independent. The mean is a ratio of two sums over documents, and this its
        linearised standard error (Cochran 1977, Sampling Techniques, chapter 6; for evaluations see Miller 2024,
        "Adding Error Bars to Evals", arXiv:2411.00640).
        """
        return self._error(self.sums)

    def minus(self, other: "HeldOutLoss") -> tuple[float, float]:
        """(difference of the means, its standard error) to another model's loss on the same windows.

        Paired: what makes a document hard for both cancels out. Raises ValueError for other windows.
        """
        if not np.array_equal(self.counts, other.counts):
            raise ValueError("two held-out losses can only be paired if they are of the same windows")
        with np.errstate(invalid="ignore"):
            return self.mean - other.mean, self._error(self.sums - other.sums)

    def _error(self, sums: NDArray[np.float64]) -> float:
        num_documents, num_tokens = len(sums), self.counts.sum()
        if num_documents < 2:
            return math.nan
        with np.errstate(invalid="ignore", over="ignore"):
            residuals = sums - self.counts * (sums.sum() / num_tokens)
            variance = num_documents / (num_documents - 1) * np.square(residuals).sum()
        return math.sqrt(variance) / int(num_tokens)


@torch.no_grad()
def evaluate(model: nn.Module, held_out: HeldOut, device: torch.device) -> HeldOutLoss:
    """The loss of every held-out window, once; in evaluation mode, from which the model returns to training mode.

    With several ranks, each evaluates all windows: the forward pass may be a collective.
    """
    sums = torch.zeros(held_out.num_documents, dtype=torch.float64, device=device)
    counts = torch.zeros(held_out.num_documents, dtype=torch.int64, device=device)
    documents = torch.from_numpy(held_out.documents).to(device)
    batch_size = max(1, BATCH_TOKENS // held_out.windows.context)
    model.eval()
    for batch in held_out.batches(batch_size):
        documents_B = documents[batch.index * batch_size : (batch.index + 1) * batch_size]
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_BTV = model(batch.inputs_BT)
        sums.index_add_(0, documents_B, token_losses(logits_BTV, batch.targets_BT).double().sum(dim=1))
        counts.index_add_(0, documents_B, (batch.targets_BT != PADDING).sum(dim=1))
    model.train()
    return HeldOutLoss(sums.cpu().numpy(), counts.cpu().numpy())
