"""The micro-batches of one optimizer step, each loaded when it is first asked for."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

END = object()


class StepOnDemand(Sequence[Any]):
    """A sequence of micro-batches whose length is known before any of them is loaded."""

    def __init__(self, num: int) -> None:
        self._num = num
        self._loaded: list[Any] = []
        self._on_load: Callable[[int, Any], object] = lambda place, micro_batch: None

    @abstractmethod
    def _load_next(self) -> Any:
        """Load the next micro-batch; END if there are fewer than was said."""

    def observe(self, on_load: Callable[[int, Any], object]) -> None:
        """Have `on_load(place, micro_batch)` called for each micro-batch, before the loop gets it."""
        self._on_load = on_load
        for place, micro_batch in enumerate(self._loaded):
            on_load(place, micro_batch)

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._num))]
        place = range(self._num)[index]
        self.load(place + 1)
        return self._loaded[place]

    def load(self, num: int) -> None:
        """Load the first `num` micro-batches."""
        while len(self._loaded) < num:
            micro_batch = self._load_next()
            if micro_batch is END:
                self._num = len(self._loaded)
                return
            self._loaded.append(micro_batch)
            self._on_load(len(self._loaded) - 1, micro_batch)
