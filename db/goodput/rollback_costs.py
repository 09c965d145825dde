"""The cost of each rewind of a run: the steps it discarded, and the time until the run was back at the same step.

`read_rewinds` reads with the session that it is given; the rest is pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import lineage
from db.goodput.accounting import merged
from db.lineage import Fork, StepRange
from db.models import Order, Run, Segment
from db.steps import step_times
from db.steps.series import buckets_by_range
from db.steps.step_times import At

TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Rewind:
    """A segment that forked off before the end of the one before it: a rollback, or a restart from a checkpoint."""

    segment: int
    """Number of the new segment."""
    reason: str
    fork_step: int
    """First step of the new segment."""
    discarded: tuple[StepRange, ...]
    """The part of the line that was live until then, from `fork_step` to its end."""
    incident: int | None = None
    """Number of the incident for which it was ordered."""
    tokens: float | None = None
    """Tokens in the discarded steps; None where the run reports no tokens."""
    first_done_at: float | None = None
    """Time at which `fork_step` was done first, in unix seconds."""
    done_again_at: float | None = None
    """Time at which the new segment did it, in unix seconds."""

    @property
    def steps(self) -> int:
        """Number of discarded steps."""
        return sum((one.last or one.first) - one.first for one in self.discarded)

    @property
    def seconds(self) -> float | None:
        if self.first_done_at is None or self.done_again_at is None:
            return None
        return max(0.0, self.done_again_at - self.first_done_at)


def total_seconds(rewinds: Sequence[Rewind]) -> float | None:
    """Time that these rewinds cost, overlaps counted once; None where it is known for none of them."""
    intervals = [
        (each.first_done_at, each.done_again_at)
        for each in rewinds
        if each.first_done_at is not None and each.done_again_at is not None
    ]
    if rewinds and not intervals:
        return None
    return sum(end - begin for begin, end in merged(intervals))


def read_rewinds(
    session: Session, *, run: Run, segments: Sequence[Segment], orders: Mapping[int, Order]
) -> list[Rewind]:
    """The rewinds with incident, tokens and times, all read together; `orders` by number of the intervention.

    Every step that is on no live line any more is in exactly one of them.
    """
    forks = lineage.forks(segments)
    incidents = {order.id: order.incident for order in orders.values()}
    firsts = [At(run.pk, fork.discarded[0].segment, fork.segment.fork_step or 0) for fork in forks]
    again = [At(run.pk, fork.segment.number, fork.segment.fork_step or 0) for fork in forks]
    times = step_times.times_of(session, [*firsts, *again])
    return [
        Rewind(
            segment=second.segment,
            reason=fork.segment.reason,
            fork_step=second.step,
            discarded=fork.discarded,
            incident=incidents.get(fork.segment.order_id or 0),
            tokens=tokens,
            first_done_at=times.get(first),
            done_again_at=times.get(second),
        )
        for fork, tokens, first, second in zip(forks, _tokens(session, run, forks), firsts, again, strict=True)
    ]


def _tokens(session: Session, run: Run, forks: Sequence[Fork]) -> list[float | None]:
    """The rise of the token counter in the discarded steps of each fork; None where it is not known."""
    ranges = [[*filter(None, [fork.before]), *fork.discarded] for fork in forks]
    together = [one for own in ranges for one in own]
    counters = buckets_by_range(session, run=run, step_ranges=together, metrics=[TOKENS], points=1)[1].get(TOKENS)
    if counters is None:
        return [None] * len(forks)
    columns = (counters.key.tolist(), counters.first.tolist(), counters.last.tolist(), counters.count.tolist())
    ends = {index: (first, last) for index, first, last, finite in zip(*columns, strict=True) if finite}
    risen: list[float | None] = []
    position = 0
    for fork, own in zip(forks, ranges, strict=True):
        position += len(own)
        read = [ends[index] for index in range(position - len(own), position) if index in ends]
        counted = any(index in ends for index in range(position - len(fork.discarded), position))
        begin = read[0][0] if read and fork.segment.fork_step else 0.0
        risen.append(read[-1][1] - begin if counted else None)
    return risen
