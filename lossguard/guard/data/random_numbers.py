"""Random numbers of the data's own, and batches that are drawn under them, by absolute index.

What draws batches uses neither the random numbers of the loop, nor leaves a trace in them.

The generators are those that a process shares: Python's `random`, NumPy's legacy one, and torch's for the CPU and for
the present CUDA device. Neither NumPy nor torch is imported here: data that draws from one of them has loaded it.
"""

import hashlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lossguard.guard.data.comparison import Repeats, StepOnDemand

Seeds = dict[str, int]
"""Name of a generator -> the number from which its seeds are derived."""


def derived(*parts: Any) -> int:
    """Return a seed of 64 bits that follows from `parts`, which are plain values."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def seeds_of_loop() -> Seeds:
    """Derive seeds from the present states of the generators, which do not change. Takes about 0.2 ms."""
    seeds = {"python": derived(random.getstate())}
    if (numpy := _numpy()) is not None:
        keys, *rest = numpy.random.get_state()[1:]
        seeds["numpy"] = derived(keys.tobytes(), *rest)
    for name, generator in _of_torch().items():
        seeds[name] = derived(bytes(generator.get_state().tolist()))
    return seeds


def leave_out(since: int, batch: int) -> None:
    """Change the generators as the skip of batches `since` to `batch` - 1 does: the next draws are others.

    A loop that draws its batches itself would draw those that are skipped otherwise. The new states follow from the
    present ones, so that a replay meets the same.
    """
    _seed(seeds_of_loop(), since, batch)


class OwnNumbers:
    """The states of generators that are in use while they are `lent`."""

    def __init__(self, seeds: Mapping[str, int] | None = None) -> None:
        """`seeds`: those of an earlier object; by default they are derived from the loop's."""
        self.seeds = dict(seeds_of_loop() if seeds is None else seeds)
        self._begun: tuple[Any, ...] = ()
        self._states: dict[str, Any] | None = None  # None: they are to be seeded
        self._bit_generator: Any = None  # NumPy's

    def begin(self, *numbers: int) -> None:
        """Begin anew with the random numbers that belong to `numbers`, such as the index of a batch."""
        self._begun, self._states = numbers, None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Use them for the duration of a context, and put those of the loop back. Takes about 20 us."""
        of_loop = _states()
        numpy = _numpy()
        if numpy is not None:
            self._bit_generator = self._bit_generator or numpy.random.MT19937()
            numpy.random.set_bit_generator(self._bit_generator)
        if self._states is None:
            _seed(self.seeds, *self._begun)
        else:
            _set_states(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set_states(of_loop)


def _numpy() -> Any:
    return sys.modules.get("numpy")


def _of_torch() -> dict[str, Any]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {}
    generators = {"torch": torch.default_generator}
    if torch.cuda.is_initialized():
        generators["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
    return generators


def _states() -> dict[str, Any]:
    """The states of all generators; NumPy's by its bit generator itself, because a copy of the state takes 50 us."""
    states: dict[str, Any] = {"python": random.getstate()}
    if (numpy := _numpy()) is not None:
        states["numpy"] = numpy.random.get_bit_generator()
    return states | {name: generator.get_state() for name, generator in _of_torch().items()}


def _set_states(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    if "numpy" in states:
        _numpy().random.set_bit_generator(states["numpy"])
    for name, generator in _of_torch().items():
        if name in states:
            generator.set_state(states[name])


def _seed(seeds: Mapping[str, int], *numbers: int) -> None:
    def seed_of(name: str) -> int:
        return derived(seeds.get(name, seeds["python"]), name, *numbers)

    random.seed(seed_of("python"))
    if (numpy := _numpy()) is not None:
        numpy.random.seed(seed_of("numpy") >> 32)
    for name, generator in _of_torch().items():
        generator.manual_seed(seed_of(name) >> 1)


class Drawn:
    """Batch i is what `get_batch(*arguments)` returns under the random numbers that belong to `seed` and i.

    Any batch can be drawn again, a skip leaves out the samples of its batches, and drawing takes nothing from the
    random numbers of the loop, which dropout uses. These are the random numbers of Python, NumPy (`numpy.random.rand`)
    and torch (CPU, present CUDA device). `get_batch` must not draw from a generator object of its own.

    `accumulate`: with a number, batch i is a sequence of that many micro-batches, each drawn when it is asked for.
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
        accumulate: int | None = None,
        rank: int | None = None,
    ) -> None:
        if accumulate is not None and accumulate < 1:
            raise ValueError(f"accumulate={accumulate} must be at least 1 micro-batch")
        self.accumulate, self.rank = accumulate, rank
        self._get_batch, self._arguments = get_batch, arguments
        self._numbers = OwnNumbers({"python": seed})

    def __getitem__(self, index: int) -> Any:
        if self.accumulate is None:
            return self.draw(index)
        num = self.accumulate
        return StepOnDemand(num, lambda place: self.draw(index * num + place))

    def draw(self, number: int) -> Any:
        """Return micro-batch `number`, counted from the first step on."""
        self._numbers.begin(_rank() if self.rank is None else self.rank, number)
        with self._numbers.lent():
            return self._get_batch(*self._arguments)


def _rank() -> int:
    distributed: Any = sys.modules.get("torch.distributed")
    is_initialised = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if is_initialised else 0
