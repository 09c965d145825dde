"""Batches that are drawn at random, by absolute index: each under random numbers that follow from its index."""

import sys
from collections.abc import Callable
from typing import Any

from lossguard.guard.data.comparison import Repeats, StepOnDemand
from lossguard.guard.data.random_numbers import OwnNumbers


class Drawn:
    """Batch i is what `get_batch(*arguments)` returns under the random numbers that belong to `seed` and i.

    Any batch can be drawn again, a skip leaves out the samples of its batches, and drawing takes nothing from the
    random numbers of the loop, which dropout uses. These are the random numbers of Python, NumPy (`numpy.random.rand`)
    and torch (CPU, present CUDA device). `get_batch` must not draw from a generator object of its own.

    `accumulate`: with 2 or more, batch i is a sequence of micro-batches, each drawn when it is asked for.
    `rank`: whose batches these are; by default the rank in torch.distributed. Ranks that need the same batches, such as
    those of a tensor-parallel group, are given the same number.

    Raises ValueError for an `accumulate` below 1.
    """

    repeats = Repeats.ALWAYS
    advice = "get_batch must draw from torch, numpy.random or random, without a generator object"

    def __init__(
        self,
        get_batch: Callable[..., Any],
        *arguments: Any,
        seed: int = 1337,
        accumulate: int = 1,
        rank: int | None = None,
    ) -> None:
        if accumulate < 1:
            raise ValueError(f"accumulate={accumulate} must be at least 1 micro-batch")
        self.accumulate, self.rank = accumulate, rank
        self._get_batch, self._arguments = get_batch, arguments
        self._numbers = OwnNumbers({"python": seed})

    def __getitem__(self, index: int) -> Any:
        if self.accumulate == 1:
            return self.draw(index)
        return StepOnDemand(self.accumulate, lambda place: self.draw(index * self.accumulate + place))

    def draw(self, number: int) -> Any:
        """Return micro-batch `number`, counted from the first step on."""
        self._numbers.begin(_rank() if self.rank is None else self.rank, number)
        with self._numbers.lent():
            return self._get_batch(*self._arguments)


def _rank() -> int:
    distributed: Any = sys.modules.get("torch.distributed")
    is_initialised = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if is_initialised else 0
