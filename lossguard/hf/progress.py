"""What a transformers Trainer knows of its progress, as an object of a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from transformers.trainer_callback import ExportableState

STATE = (
    *("epoch", "global_step", "num_input_tokens_seen", "total_flos", "log_history"),
    *("best_metric", "best_global_step", "best_model_checkpoint"),
)
"""What a TrainerState holds of the progress; the rest are settings, which may be others when a run is resumed."""
SUMS = ("_total_loss_scalar", "_globalstep_last_logged", "current_flos")
"""What the Trainer keeps outside of its state, for its own logs."""


class Part:
    """An attribute of a Trainer that is made when the training begins, such as its optimizer."""

    def __init__(self, trainer: Trainer, name: str) -> None:
        self.trainer, self.name = trainer, name

    def state_dict(self) -> Any:
        """That of the attribute."""
        return getattr(self.trainer, self.name).state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Restore the attribute."""
        getattr(self.trainer, self.name).load_state_dict(state)


class Progress:
    """The TrainerState, the sums behind the losses that the Trainer logs, and the state of its callbacks."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer: Any = trainer
        self.loss_sum: Tensor | None = None
        """The tensor in which the loop sums losses up until it logs them, where it is known."""

    def begin(self) -> None:
        """A loop begins: its sum is known from the beginning on, or (transformers 4) after its first step."""
        self.loss_sum = getattr(self.trainer, "_tr_loss", None)

    def state_dict(self) -> dict[str, Any]:
        """In tensors and plain values."""
        state = {name: getattr(self.trainer.state, name) for name in STATE if hasattr(self.trainer.state, name)}
        sums = {name: float(getattr(self.trainer, name)) for name in SUMS if hasattr(self.trainer, name)}
        callbacks = [[type(each).__name__, each.state().get("attributes", {})] for each in self._callbacks()]
        loss_sum = None if self.loss_sum is None else self.loss_sum.detach().clone()
        text = json.dumps({"state": state, "callbacks": callbacks}, default=lambda value: value.item())
        return {"json": text, "sums": sums, "loss_sum": loss_sum}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore it into the objects that the loop holds."""
        content = json.loads(saved["json"])
        for name, value in content["state"].items():
            setattr(self.trainer.state, name, value)
        for callback, (name, attributes) in zip(self._callbacks(), content["callbacks"], strict=False):
            if type(callback).__name__ == name:
                vars(callback).update(attributes)
        for name, value in saved["sums"].items():
            setattr(self.trainer, name, type(getattr(self.trainer, name))(value))
        if self.loss_sum is not None and saved["loss_sum"] is not None:
            with torch.no_grad():
                self.loss_sum.copy_(saved["loss_sum"])
        else:  # begin a new mean, as the Trainer does when it resumes
            self.trainer._globalstep_last_logged = self.trainer.state.global_step

    def _callbacks(self) -> list[ExportableState]:
        return [each for each in self.trainer.callback_handler.callbacks if isinstance(each, ExportableState)]
