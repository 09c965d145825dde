"""The settings that a checkpoint was made with: it must not be continued with other settings."""

from typing import Any

from trainer.config import Recipe
from trainer.data.shuffle import MAX_SORTED_SIZE
from trainer.errors import UsageError


class Provenance:
    """Saved in every checkpoint; compared when a checkpoint is loaded, before anything else is restored."""

    def __init__(self, recipe: Recipe, *, num_windows: int) -> None:
        model = recipe.to_dict()["model"]
        self.settings: dict[str, Any] = {f"model.{name}": value for name, value in model.items()}
        self.settings |= {
            "seed": recipe.seed,
            "data.batch_size": recipe.data.batch_size,
            "data.easy_first": recipe.data.easy_first,
            # An optimizer's state contains these, too, and would silently restore the values of the checkpoint.
            "optimizer.beta1": recipe.optimizer.beta1,
            "optimizer.beta2": recipe.optimizer.beta2,
            "optimizer.weight_decay": recipe.optimizer.weight_decay,
            "the number of training windows in the data": num_windows,
        }
        if num_windows <= MAX_SORTED_SIZE:  # earlier releases had another order there
            self.settings["the shuffle of a few windows"] = "sorted"

    def state_dict(self) -> dict[str, Any]:
        return dict(self.settings)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UsageError that names every setting in which the checkpoint differs."""
        names = sorted(state.keys() | self.settings.keys())
        differing = [name for name in names if state.get(name) != self.settings.get(name)]
        if differing:
            changes = "; ".join(
                f"{name} was {state.get(name)!r} and is {self.settings.get(name)!r}" for name in differing
            )
            raise UsageError(
                f"The run cannot continue from its checkpoint with another recipe or other data: {changes}."
            )
