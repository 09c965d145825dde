"""The content of a batch: the row with the highest loss, as text.

Shapes: B sequences, T positions, V vocabulary.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from lossguard import encode_number
from trainer.data.tokenizer import Tokenizer, printable
from trainer.data.windows import PADDING, Batch
from trainer.model import GPT

MAX_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One row of a batch."""

    batch: int
    row: int
    loss: float
    """Its mean loss in nats per token."""
    inputs: str
    targets: str

    def to_dict(self) -> dict[str, Any]:
        """Return the excerpt as the collector accepts it."""
        return asdict(self) | {"loss": encode_number(self.loss)}


@torch.no_grad()
def excerpt(model: GPT, batch: Batch, tokenizer: Tokenizer) -> Excerpt:
    """The row with the highest loss (the first one that is not finite, if any)."""
    device = next(model.parameters()).device
    model.eval()
    logits_BTV = model(batch.inputs_BT.to(device)).float()
    model.train()
    targets_BT = batch.targets_BT.to(device)
    losses_B = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none").sum(dim=1)
    losses_B /= (targets_BT != PADDING).sum(dim=1)
    row = int(losses_B.nan_to_num(nan=torch.inf).argmax())
    real_T = batch.targets_BT[row] != PADDING
    rows = (batch.inputs_BT[row][real_T], batch.targets_BT[row][real_T])
    inputs, targets = (printable(tokens_T, tokenizer, max_characters=MAX_CHARACTERS) for tokens_T in rows)
    return Excerpt(batch.index, row, losses_B[row].item(), inputs, targets)
