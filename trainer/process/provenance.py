"""The settings that a checkpoint was made with: it is not continued with others, and they tell its model."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from lossguard import LossguardError
from lossguard.torch import Checkpoints
from trainer.config import ModelConfig, Recipe
from trainer.data.batches import curriculum_steps
from trainer.data.held_out import HeldOut
from trainer.data.split import THE_END
from trainer.data.tokenizer import BytePairs, Bytes, Ids, Tokenizer
from trainer.errors import UsageError
from trainer.model import GPT

PAIRS = "the byte pairs"


class Provenance:
    """Saved in every checkpoint; compared when a checkpoint is loaded, before anything else is restored."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        num_windows: int,
        held_out: HeldOut | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """`num_windows`: all of the training data, of which `data.max_windows` are used; they tell other data."""
        model = recipe.to_dict()["model"]
        self.settings: dict[str, Any] = {f"model.{name}": value for name, value in model.items()}
        self.settings |= {
            "seed": recipe.seed,
            "data.batch_size": recipe.data.batch_size,
            "data.easy_first": recipe.data.easy_first,
            "data.rows": recipe.data.rows,
            "data.max_windows": recipe.data.max_windows,
            "the held-out data": THE_END if held_out is None else held_out.chosen,
            # An optimizer's state contains these, too, and would silently restore the values of the checkpoint.
            "optimizer.beta1": recipe.optimizer.beta1,
            "optimizer.beta2": recipe.optimizer.beta2,
            "optimizer.weight_decay": recipe.optimizer.weight_decay,
            "the number of training windows in the data": num_windows,
        }
        if tokenizer is not None:
            self.settings["the tokenizer"] = tokenizer.name
        if isinstance(tokenizer, BytePairs):  # `trainer explore` reads them; other pairs make other numbers of windows
            self.settings[PAIRS] = tokenizer.to_json()
        if recipe.data.easy_first:  # the order of the data depends on it
            self.settings["data.curriculum_steps"] = curriculum_steps(recipe)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.settings)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UsageError that names every setting in which the checkpoint differs."""
        names = sorted(state.keys() | self.settings.keys())
        differing = [name for name in names if state.get(name) != self.settings.get(name)]
        if differing:
            changes = "; ".join(
                f"{name} was {state.get(name)!r:.40} and is {self.settings.get(name)!r:.40}" for name in differing
            )
            raise UsageError(
                f"The run cannot continue from its checkpoint with another recipe or other data: {changes}. Set the "
                "recipe as it was, or start a new run."
            )


# A checkpoint without its run: to look at its model, not to train on.


def load_model(folder: Path) -> GPT:
    """The model of the checkpoint in `folder` (`step-000000500`), on the CPU, in evaluation mode. Raises UsageError."""
    settings = _read(folder, "origin")
    shape = {each.name: settings.get(f"model.{each.name}") for each in fields(ModelConfig)}
    model = GPT(ModelConfig(**{name: value for name, value in shape.items() if value is not None}))
    state = _read(folder, "model")
    if all(value is not None for value in state.values()):
        model.load_state_dict(state)
        return model.eval()
    # Several ranks wrote it: tensors in files of their own, and None in place of each in model.pt.
    folder = folder.resolve()
    number = folder.name.removeprefix("step-")
    if not number.isdecimal():
        raise UsageError(f"The checkpoint at {folder} is of several ranks: its folder must be called step-NUMBER.")
    try:
        Checkpoints(folder.parent, model=model).load(int(number), not_before=int(number))
    except LossguardError as problem:
        raise UsageError(f"The checkpoint at {folder} cannot be read: {problem}.") from None
    return model.eval()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of the model. Raises UsageError."""
    settings = _read(folder, "origin")
    name = settings.get("the tokenizer")
    if (pairs := settings.get(PAIRS)) is not None:
        return BytePairs.from_json(pairs)
    return Bytes() if name == "bytes" else Ids(name)


def _read(folder: Path, name: str) -> Any:
    file = folder / f"{name}.pt"
    if not file.exists():
        raise UsageError(
            f"There is no checkpoint of the trainer at {folder}: give a folder such as "
            ".lossguard/trainer/RUN/checkpoints/step-000000500."
        )
    try:
        return torch.load(file, "cpu", weights_only=True)
    except Exception as problem:
        raise UsageError(f"The checkpoint at {folder} cannot be read: {problem}.") from None
