"""The cost of each rewind of a run: the steps it discarded, and the time until the run was back at the same step.

`read_rewinds` reads with the session that it is given; the rest is pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from db import lineage, queries
from db.goodput.accounting import merged
from db.lineage import StepRange
from db.models import Order, Run, Segment


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
    """In the discarded steps; None where the run reports no tokens."""
    first_done_at: float | None = None
    """When `fork_step` was done first, in unix seconds."""
    done_again_at: float | None = None
    """When the new segment did it, in unix seconds."""

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


def find_rewinds(segments: Sequence[Segment]) -> list[Rewind]:
    """In the order in which they happened. Every step that is on no live line any more is in exactly one of them."""
    return [
        Rewind(fork.segment.number, fork.segment.reason, fork.segment.fork_step or 0, fork.discarded)
        for fork in lineage.forks(segments)
    ]


def read_rewinds(
    session: Session, *, run: Run, segments: Sequence[Segment], orders: Mapping[int, Order]
) -> list[Rewind]:
    """With incident, tokens and times; `orders` by number of the intervention."""
    incidents = {order.id: order.incident for order in orders.values()}
    order_ids = {segment.number: segment.order_id for segment in segments}
    return [
        replace(
            rewind,
            incident=incidents.get(order_ids[rewind.segment] or 0),
            tokens=_tokens(session, run, segments, rewind),
            first_done_at=_time(session, run, rewind.discarded[0].segment, rewind.fork_step),
            done_again_at=_time(session, run, rewind.segment, rewind.fork_step),
        )
        for rewind in find_rewinds(segments)
    ]


def _time(session: Session, run: Run, segment: int, step: int) -> float | None:
    return queries.times(session, run=run, step_ranges=[StepRange(segment, 0, None)], steps=[step]).get(step)


def _tokens(session: Session, run: Run, segments: Sequence[Segment], rewind: Rewind) -> float | None:
    """By how much the token counter rose in the discarded steps."""
    end = rewind.discarded[-1]
    counter = queries.series(
        session,
        run=run,
        step_ranges=lineage.line_to(segments, end.segment),
        metric="tokens",
        first=max(0, rewind.fork_step - 1),
        last=(end.last or 0) - 1,
        points=1,
    )
    if not len(counter) or counter.last[-1] is None:
        return None
    return counter.last[-1] - ((counter.first[0] or 0.0) if rewind.fork_step > 0 else 0.0)
