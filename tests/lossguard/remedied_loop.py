"""A loop with a remedy, in the process of a test or in one of its own."""

from typing import Any

from lossguard import Guard, Run
from lossguard.vocabulary.orders import Order
from tests.lossguard.scripted import Indices, Memory, rollback


class Loop:
    """A loop whose weight is 1, and 10 while the remedy `weight` is applied."""

    def __init__(self, run: Run, checkpoints: Any = None, *, lasts: int = 3) -> None:
        self.weight, self.calls = 1, ""
        self.guard = Guard(run, checkpoints=checkpoints or Memory([]), every=2)
        self.guard.remedy("weight", self.apply, self.revert, lasts=lasts)

    def apply(self) -> None:
        self.weight, self.calls = 10, self.calls + "+"

    def revert(self) -> None:
        self.weight, self.calls = 1, self.calls + "-"

    def run(self, until: int) -> list[tuple[int, int]]:
        """(step, weight) of each step."""
        seen = []
        for step, _ in self.guard.steps(Indices(), until):
            self.guard.run.log(step, loss=1.0)
            seen.append((step, self.weight))
        return seen


def ordered(rewind_to: int, *names: str, **fields: Any) -> Order:
    return rollback(rewind_to=rewind_to, remedies=names or ("weight",), **fields)
