"""What each way back of a run cost: what was computed and left, and the time until the run was there again.

`ways_back` reads with the session that it is given; the rest is pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sqlalchemy.orm import Session

from dashboard.data import compute
from db import lineage, queries
from db.lineage import StepRange
from db.models import Order, Run, Segment


@dataclass(frozen=True, slots=True)
class Rewind:
    """From one segment to the one that forked off before its end."""

    segment: int
    """The new one."""
    reason: str
    fork: int
    """The step that the run went back to."""
    left: tuple[StepRange, ...]
    """What was given up: the line that was live until then, from the fork to its end."""
    incident: int | None = None
    """Number of the incident that it was ordered for."""
    tokens: float | None = None
    """Seen by the steps that were given up; None where the run does not count tokens."""
    left_at: float | None = None
    """When the step `fork` was done first, in unix seconds."""
    back_at: float | None = None
    """When it was done again."""

    @property
    def steps(self) -> int:
        return sum((one.last or one.first) - one.first for one in self.left)

    @property
    def seconds(self) -> float | None:
        return None if self.left_at is None or self.back_at is None else max(0.0, self.back_at - self.left_at)


def total_seconds(ways: Sequence[Rewind]) -> float | None:
    """The time that these took, counted once where they overlap; None where it is known of none of them."""
    told = [(way.left_at, way.back_at) for way in ways if way.left_at is not None and way.back_at is not None]
    return compute.union(told) if told or not ways else None


def given_up(segments: Sequence[Segment]) -> list[Rewind]:
    """In the order in which it happened. Every step that lies on no live line any more is in exactly one of them."""
    opened = sorted(
        (segment for segment in segments if segment.fork_step is not None), key=lambda one: (one.opened_at, one.number)
    )
    ends = {one.number: (one.first_step, one.last_step) for one in segments}
    found = []
    for before, segment in pairwise(opened):
        assert segment.fork_step is not None
        line = lineage.line_to(opened, before.number)
        left = tuple(one for part in line for one in _beyond(part, segment.fork_step, *ends[part.segment]))
        if left:
            found.append(Rewind(segment.number, segment.reason, segment.fork_step, left))
    return found


def _beyond(part: StepRange, fork: int, first: int | None, last: int | None) -> list[StepRange]:
    """The steps of a stretch from `fork` on that were done."""
    if first is None or last is None:
        return []
    low, high = max(part.first, fork, first), last + 1 if part.last is None else min(part.last, last + 1)
    return [StepRange(part.segment, low, high)] if low < high else []


def read_rewinds(
    session: Session, *, run: Run, segments: Sequence[Segment], orders: Mapping[int, Order]
) -> list[Rewind]:
    """With what they cost; `orders` by number of the intervention."""
    ordered = {order.id: order.incident for order in orders.values()}
    by_segment = {segment.number: segment.order_id for segment in segments}
    told = []
    for way in given_up(segments):
        end = way.left[-1]
        left_at, back_at = (
            _when(session, run, way.left[0].segment, way.fork),
            _when(session, run, way.segment, way.fork),
        )
        told.append(
            replace(
                way,
                incident=ordered.get(by_segment[way.segment] or 0),
                tokens=_tokens(session, run, lineage.line_to(segments, end.segment), way.fork, (end.last or 0) - 1),
                left_at=left_at,
                back_at=back_at,
            )
        )
    return told


def _when(session: Session, run: Run, segment: int, step: int) -> float | None:
    return queries.times(session, run=run, step_ranges=[StepRange(segment, 0, None)], steps=[step]).get(step)


def _tokens(session: Session, run: Run, line: Sequence[StepRange], fork: int, last: int) -> float | None:
    """What the counter rose by, from before `fork` to `last`."""
    counted = queries.series(
        session, run=run, step_ranges=line, metric="tokens", first=max(0, fork - 1), last=last, points=1
    )
    if not len(counted) or counted.last[-1] is None:
        return None
    return counted.last[-1] - ((counted.first[0] or 0.0) if fork > 0 else 0.0)
