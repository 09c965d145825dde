"""The processes that train one run together, and how they agree.

`Ranks` is a process that is alone: it agrees with itself at once. `lossguard.torch.TorchRanks` is the one for
torch.distributed.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from lossguard.errors import CheckpointError, CheckpointMismatch, RanksError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RankState:
    """What a rank has to say at a step boundary, or what all of them together said."""

    step: int
    signal: int = 0
    """Number of the signal that asks the run to stop; 0 for none."""
    order: bool = False
    """Whether rank 0 has an order in its hand."""


class Ranks:
    """As it stands here: one process. With several, every rank calls every method at the same place of its loop."""

    rank: int = 0
    size: int = 1

    def name_run(self, given: str | None, otherwise: str) -> str:
        """The id of a run: rank 0's `given` one, or that of this launch before it was restarted, or `otherwise`.

        The other ranks wait for it; rank 0 waits for nobody.
        """
        return given or otherwise

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every rank, in their order."""
        return [value]

    def share(self, value: T) -> T:
        """Rank 0's `value`."""
        return value

    def meet(self, word: RankState, *, wait: bool = False) -> RankState:
        """Say `word`, and hear what all ranks said at this boundary (one rank, or `wait`) or at an earlier one.

        Raises RanksError when a rank has left, or the ranks are at different steps.
        """
        return word

    @contextmanager
    def telling_who_left(self) -> Iterator[None]:
        """A context for the loop: where its own collectives break because a process ended, RanksError says which."""
        yield

    def close(self) -> None:
        """Let go of what the agreeing needs, on every rank once all have come to an end; a later word takes it up anew.

        Threads of gloo that are left when Python ends may abort the process: they then still drop tensors.
        """

    def together(self, action: Callable[..., T], *arguments: Any) -> T:
        """`action(*arguments)` on every rank: what fails on one fails on all.

        Raises this rank's own exception, or one of the same severity that names the rank: CheckpointMismatch before
        any other, CheckpointError (nothing has changed) last.
        """
        problem: Exception | None = None
        try:
            result = action(*arguments)
        except RanksError:
            raise  # nobody is there to be told
        except Exception as caught:
            problem = caught
        told: list[tuple[int, str]] = self.gather(_telling(problem))
        worst, why = max(told)
        if not worst:
            return result
        if problem is not None and _telling(problem)[0] == worst:
            raise problem
        raise _BY_SEVERITY[worst](f"rank {told.index((worst, why))}: {why}")


_BY_SEVERITY: dict[int, type[Exception]] = {1: CheckpointError, 2: RuntimeError, 3: CheckpointMismatch}


def _telling(problem: Exception | None) -> tuple[int, str]:
    """Severity (0: nothing went wrong) and text: an exception itself may not be able to travel."""
    if problem is None:
        return 0, ""
    if isinstance(problem, CheckpointMismatch):
        return 3, str(problem)
    if isinstance(problem, CheckpointError):
        return 1, str(problem)
    return 2, f"{type(problem).__name__}: {problem}"


def present() -> Ranks:
    """The ranks of torch.distributed where this process has initialised it, else this process alone."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Ranks()
    if distributed.get_world_size() == 1:
        return Ranks()
    ranks: Ranks = importlib.import_module("lossguard.torch.ranks").TorchRanks()  # torch is loaded already
    return ranks
