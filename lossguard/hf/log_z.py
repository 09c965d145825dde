"""The loss of a causal language model through `causal_lm_loss`, which gives its log Z without another pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossguard.torch.loss import causal_lm_loss

IGNORED = -100


@dataclass(frozen=True, slots=True)
class LogZSum:
    """log Z of the tokens of a step: 0-dim tensors."""

    total: Tensor
    num_tokens: Tensor
    highest: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """Return the metrics as `run.log` takes them."""
        return {"log_z": self.total / self.num_tokens.clamp(min=1), "log_z_max": self.highest}


class LogZ:
    """A `compute_loss_func`: the same loss as the model's own but for rounding, and the sums of its log Z.

    Raises ValueError where the loss of `trainer` is another one.
    """

    def __init__(self, trainer: Trainer) -> None:
        if why := _other_loss(trainer):
            raise ValueError(f"log_z=True needs the plain loss of a causal language model, and {why}: leave log_z out")
        self.trainer: Any = trainer
        self._sum: LogZSum | None = None

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        logits_BTV = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        targets_BT = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
        terms = causal_lm_loss(logits_BTV, targets_BT.to(logits_BTV.device))
        if self.trainer.model.training:
            self._add(terms.log_z * terms.num_tokens, terms.num_tokens, terms.log_z_max)
        if num_items_in_batch is None:
            return terms.loss
        share: Tensor = terms.num_tokens / num_items_in_batch
        return terms.loss * share

    def _add(self, total: Tensor, num_tokens: Tensor, highest: Tensor) -> None:
        known = self._sum
        if known is not None:
            highest = torch.maximum(known.highest, highest)  # keeps a NaN
            total, num_tokens = known.total + total, known.num_tokens + num_tokens
        self._sum = LogZSum(total, num_tokens, highest)

    def take(self) -> LogZSum | None:
        """The sums since the last call."""
        taken, self._sum = self._sum, None
        return taken


def _other_loss(trainer: Any) -> str:
    """Return why the loss of this trainer is not the plain one; empty if it is."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's
    if trainer.compute_loss_func is not None:
        return "this trainer has a compute_loss_func of its own"
    if trainer.label_smoother is not None:
        return "this trainer smooths its labels"
    if type(trainer).compute_loss is not Trainer.compute_loss:
        return f"{type(trainer).__name__} computes its loss itself"
    is_causal = type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if not is_causal or model.loss_function is not ForCausalLMLoss:
        return f"{type(model).__name__} has another one"
    if getattr(model.config, "output_router_logits", False):
        return "this model adds the loss of its router"
    return ""
