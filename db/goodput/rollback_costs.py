"""The cost of each rewind of a run: the steps it discarded, and the time until the run was back at the same step.

`read_rewinds` reads with the session that it is given; the rest is pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import lineage, queries
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
    """Time at which the step of the new segment's first row was done first, in unix seconds."""
    done_again_at: float | None = None
    """Time of the first row of the new segment, in unix seconds."""

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
    stride = lineage.source_of(queries.source_events(session, run=run)).stride if forks else 1
    forks = [_with_steps_before(fork, stride) for fork in forks]
    incidents = {order.id: order.incident for order in orders.values()}
    before = [At(run.pk, fork.segment.number, (fork.segment.fork_step or 0) - 1) for fork in forks]
    again = step_times.after(session, before)
    first_rows = [again[at].step if at in again else at.step + 1 for at in before]
    first = [
        At(run.pk, next((one.segment for one in fork.discarded if one.holds(step)), fork.discarded[0].segment), step)
        for fork, step in zip(forks, first_rows, strict=True)
    ]
    done_first = step_times.times_of(session, first)
    return [
        Rewind(
            segment=fork.segment.number,
            reason=fork.segment.reason,
            fork_step=at.step + 1,
            discarded=fork.discarded,
            incident=incidents.get(fork.segment.order_id or 0),
            tokens=tokens,
            first_done_at=done_first.get(row),
            done_again_at=again[at].time if at in again else None,
        )
        for fork, tokens, row, at in zip(forks, _tokens(session, run, forks), first, before, strict=True)
    ]


def _with_steps_before(fork: Fork, stride: int) -> Fork:
    """The fork with all steps of its first row, where a segment is opened by a row that stands for `stride` steps."""
    segment, (first, *others) = fork.segment, fork.discarded
    if stride == 1 or segment.fork_step is None or segment.first_step != segment.fork_step:
        return fork
    begin = max(0, segment.fork_step - stride + 1)
    number = first.segment if fork.before is None else fork.before.segment
    before = StepRange(number, max(0, begin - stride), begin) if begin else None
    return Fork(segment, (StepRange(first.segment, begin, first.last), *others), before)


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
