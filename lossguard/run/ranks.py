"""The processes that train one run together, and how they agree.

`Ranks` is a single process, which agrees with itself at once. `lossguard.torch.TorchRanks` is the implementation for
torch.distributed. `lossguard.run.ranks.current_ranks` chooses between them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch, RanksError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SampleFindings:
    """The findings of a comparison of samples on one rank, or the maxima of all ranks."""

    returned_batch: int = -1
    """Index of a batch with samples that a rollback has skipped; -1 for none."""
    returned_rows: int = 0
    """Number of such samples in it."""
    differing_batch: int = -1
    """Index of a batch that held other samples when it was read again; -1 for none."""
    differing_rows: int = 0
    """Number of samples in it that differed."""


NO_FINDINGS = SampleFindings()


@dataclass(frozen=True, slots=True)
class RankState:
    """The state of one rank at a step boundary, or the combined state of all ranks."""

    step: int
    signal: int = 0
    """Number of the signal that asks the run to stop; 0 for none."""
    order: bool = False
    """True if rank 0 has an order to execute."""
    findings: SampleFindings = NO_FINDINGS
    """Findings of the comparison of samples that not all ranks know yet."""


class Ranks:
    """This class: one process. With several processes, every rank calls every method at the same place of its loop."""

    rank: int = 0
    size: int = 1

    def agree_on_run_id(self, given: str | None, otherwise: str) -> str:
        """The id of the run: rank 0's `given` id, or the id before a restart of this launch, or `otherwise`.

        The other ranks wait for rank 0; rank 0 does not wait.
        """
        return given or otherwise

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every rank, in the order of the ranks."""
        return [value]

    def gather_on_rank_0(self, value: Any) -> list[Any]:
        """Return the values of all ranks on rank 0; an empty list on the others."""
        values = self.gather(value)
        return values if self.rank == 0 else []

    def joined_on_rank_0(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the `values` of all ranks in one dict on rank 0, those of later ranks last; {} on the others."""
        return dict(item for of_rank in self.gather_on_rank_0(values) for item in of_rank.items())

    def maximum(self, number: int) -> int:
        """The largest `number` of any rank."""
        largest: int = max(self.gather(number))
        return largest

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`."""
        return value

    def ask_rank_0(self, question: Callable[[], T]) -> T:
        """Return what `question()` returns on rank 0, which alone calls it, to spare a shared disk.

        If it raises there, it raises on all.
        """
        return self.broadcast(self.run_on_all(lambda: question() if self.rank == 0 else None))  # type: ignore[return-value]

    def exchange(self, state: RankState, *, wait: bool = False) -> RankState:
        """Send this rank's `state`; return the combined state of all ranks.

        With several ranks it is the state at an earlier boundary, unless `wait` asks for this one.
        Raises RanksError when a rank has left, or the ranks are at different steps.
        """
        return state

    @contextmanager
    def reporting_lost_ranks(self) -> Iterator[None]:
        """A context for the loop: if its own collectives fail because a process ended, RanksError names the process."""
        yield

    def close(self) -> None:
        """Release the communication resources, on every rank at the end; a later exchange opens them again.

        Threads of gloo that still run when Python exits may abort the process, because they drop tensors then.
        """

    def run_on_all(self, action: Callable[..., T], *arguments: Any) -> T:
        """Call `action(*arguments)` on every rank: if it fails on one rank, it fails on all.

        Raises this rank's own exception, or one of the same severity that names the rank. CheckpointMismatch is the
        most severe; CheckpointError (nothing has changed) is the least severe.
        """
        problem: Exception | None = None
        try:
            result = action(*arguments)
        except RanksError:
            raise  # the other ranks cannot be reached
        except Exception as caught:
            problem = caught
        report = _report(problem)
        if not self.maximum(report[0]):
            return result
        reports: list[tuple[int, str]] = self.gather(report)
        worst, why = max(reports)
        if problem is not None and report[0] == worst:
            raise problem
        raise _BY_SEVERITY[worst](f"rank {reports.index((worst, why))}: {why}")


_BY_SEVERITY: dict[int, type[Exception]] = {1: CheckpointError, 2: RuntimeError, 3: CheckpointMismatch}


def _report(problem: Exception | None) -> tuple[int, str]:
    """Severity (0: success) and text. The exception itself may not be serialisable."""
    if problem is None:
        return 0, ""
    if isinstance(problem, CheckpointMismatch):
        return 3, str(problem)
    if isinstance(problem, CheckpointError):
        return 1, str(problem)
    return 2, f"{type(problem).__name__}: {problem}"


def current_ranks() -> Ranks:
    """The ranks of torch.distributed if this process has initialised it, else this process alone. Never loads torch."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Ranks()
    if distributed.get_world_size() == 1:
        return Ranks()
    from lossguard.run.torch_ranks import TorchRanks  # torch is loaded already

    return TorchRanks()
