"""The loss of each source of the data: one that rises while the mean falls is lost in the mean.

Shapes: B sequences, T positions, V vocabulary, S sources.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossguard.torch.loss import row_losses


@torch.no_grad()
def token_losses(logits_BTV: Tensor, targets_BT: Tensor, *, ignore_index: int = -100) -> Tensor:
    """float[B, T]: cross-entropy of each token in nats, in float32 at least; 0 where the target is ignored.

    A pass over the logits of its own, chunk by chunk, beside that of `causal_lm_loss`: take it every few steps only.
    """
    return row_losses(logits_BTV.detach(), targets_BT, ignore_index)


@torch.no_grad()
def loss_by_source(
    losses_BT: Tensor, targets_BT: Tensor, sources: Sequence[str], *, ignore_index: int = -100
) -> dict[str, Tensor]:
    """`source_loss/NAME`: the mean loss of the tokens of each source in this batch, 0-dim tensors on its device.

    `sources` names the source of each of the B sequences: the data loader knows it, so that a source without sequences
    in this batch is left out without a host sync. One whose targets are all ignored has the loss 0. The means are those
    of this rank's batch. Raises ValueError when there are not B names.
    """
    if len(sources) != len(losses_BT):
        raise ValueError(f"sources has {len(sources)} names for {len(losses_BT)} sequences")
    names = list(dict.fromkeys(sources))
    numbers = torch.tensor([names.index(name) for name in sources]).to(losses_BT.device, non_blocking=True)
    counted_BT = targets_BT != ignore_index
    sums_S = losses_BT.new_zeros(len(names))
    sums_S.index_add_(0, numbers, losses_BT.detach().where(counted_BT, 0.0).sum(dim=1))
    counts_S = torch.zeros_like(sums_S).index_add_(0, numbers, counted_BT.sum(dim=1).to(sums_S.dtype))
    means_S = sums_S / counts_S.clamp(min=1)
    return {f"source_loss/{name}": mean for name, mean in zip(names, means_S.unbind(), strict=True)}
