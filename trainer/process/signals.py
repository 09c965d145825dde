"""Signals that a run reports beside its usual metrics, where it is asked for them: `--signals`."""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lossguard.torch import AttentionLogits, LayerGradNorms, UpdateNorm
from trainer.errors import UsageError

SIGNALS = ("update_norm", "layer_norms", "attention")
ATTENTION_EVERY = 10
"""Steps between two looks at the attention logits."""


def parse_signals(text: str) -> tuple[str, ...]:
    """The names in a list with commas. Raises UsageError for an unknown one."""
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if unknown := [name for name in names if name not in SIGNALS]:
        raise UsageError(f"--signals {text!r:.100}: {unknown[0]!r:.50} is none of {', '.join(SIGNALS)}.")
    return names


class ExtraSignals:
    """Measures the chosen signals of one training step after the other, without a host sync."""

    def __init__(self, names: Collection[str], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._attention = AttentionLogits(every=ATTENTION_EVERY) if "attention" in names else None
        self._layer_norms = LayerGradNorms(model) if "layer_norms" in names else None
        self._update_norm = UpdateNorm(optimizer) if "update_norm" in names else None
        self._num_steps = 0
        self._measured: dict[str, Tensor] = {}

    def watching(self) -> AbstractContextManager[Any]:
        """Around the forward pass."""
        self._num_steps += 1
        return nullcontext() if self._attention is None else self._attention.watching(self._num_steps - 1)

    def read_gradients(self) -> None:
        """After the backward pass, before the gradients are clipped."""
        self._measured = {} if self._layer_norms is None else self._layer_norms.measure()

    def take(self) -> dict[str, Tensor]:
        """After the optimizer's step: what was measured, as 0-dim tensors by the names to log."""
        for each in (self._attention, self._update_norm):
            self._measured |= {} if each is None else each.take()
        measured, self._measured = self._measured, {}
        return measured
