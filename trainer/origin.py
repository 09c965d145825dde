"""What a checkpoint was made with, so that it is never continued with something else."""

from typing import Any

from trainer.config import Recipe
from trainer.errors import UserMistake


class Origin:
    """Saved in every checkpoint and compared, before anything else is restored, when one is loaded."""

    def __init__(self, recipe: Recipe, *, num_windows: int) -> None:
        model = recipe.to_dict()["model"]
        self.facts: dict[str, Any] = {f"model.{name}": value for name, value in model.items()}
        self.facts |= {
            "seed": recipe.seed,
            "data.batch_size": recipe.data.batch_size,
            "data.easy_first": recipe.data.easy_first,
            # An optimizer's state holds these too and would silently bring back the checkpoint's.
            "optimizer.beta1": recipe.optimizer.beta1,
            "optimizer.beta2": recipe.optimizer.beta2,
            "optimizer.weight_decay": recipe.optimizer.weight_decay,
            "the number of training windows in the data": num_windows,
        }

    def state_dict(self) -> dict[str, Any]:
        return dict(self.facts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserMistake that names every fact in which the checkpoint differs."""
        names = sorted(state.keys() | self.facts.keys())
        differing = [name for name in names if state.get(name) != self.facts.get(name)]
        if differing:
            told = "; ".join(f"{name} was {state.get(name)!r} and is {self.facts.get(name)!r}" for name in differing)
            raise UserMistake(f"The run cannot go on from its checkpoint with another recipe or other data: {told}.")
