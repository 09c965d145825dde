"""The tree of a run's segments, and the live line through it. Pure: values in, values out."""

from collections.abc import Sequence
from dataclasses import dataclass

from db.models import Event, Segment
from lossguard.protocol import SegmentReason

OUTLIER = "outlier"
"""Kind of the event of a row out of band that was let pass: nothing that the trainer announced."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps [first, last) of one segment; `last` None means without end."""

    segment: int
    first: int
    last: int | None

    def holds(self, step: int) -> bool:
        return self.first <= step and (self.last is None or step < self.last)


def live_line(segments: Sequence[Segment]) -> list[Stretch]:
    """The path from the root to the newest segment, oldest first, each stretch cut where its child forked off.

    The newest is the one that the trainer opened last, whenever it arrived: a spool may be delivered late.
    Segments that have not told their first step yet (a resume before its first report) are left out.
    """
    settled = [segment for segment in segments if segment.fork_step is not None]
    newest = max(settled, key=lambda segment: (segment.opened_at or 0.0, segment.number), default=None)
    return [] if newest is None else line_to(segments, newest.number)


def line_to(segments: Sequence[Segment], number: int | None) -> list[Stretch]:
    """The path from the root to the end of this segment, on the live line or not."""
    settled = {segment.number: segment for segment in segments if segment.fork_step is not None}
    line: list[Stretch] = []
    last: int | None = None
    while number is not None and (segment := settled.get(number)) is not None:
        assert segment.fork_step is not None
        if last is None or segment.fork_step < last:  # else the child forked off before this one began
            line.append(Stretch(number, segment.fork_step, last))
            last = segment.fork_step
        number = segment.parent
    return line[::-1]


def parent_at(segments: Sequence[Segment], fork_step: int) -> int | None:
    """Number of the live segment that held the step before `fork_step`; None when the fork goes back to the root."""
    before = [stretch for stretch in live_line(segments) if stretch.first < fork_step]
    return before[-1].segment if before else None


def declared(
    segments: Sequence[Segment], events: Sequence[Event], line: Sequence[Stretch], first: int, last: int
) -> list[tuple[int, str]]:
    """(step, kind) of what the steps [first, last) of a line announced: declared events, and where it was resumed."""
    told = [
        (event.segment, event.step, event.kind) for event in events if event.step is not None and event.kind != OUTLIER
    ]
    told += [
        (segment.number, segment.fork_step, segment.reason)
        for segment in segments
        if segment.reason == SegmentReason.RESUME and segment.fork_step is not None
    ]
    return sorted(
        (step, kind)
        for number, step, kind in told
        if first <= step < last and any(part.segment == number and part.holds(step) for part in line)
    )


def discarded(segments: Sequence[Segment]) -> list[Stretch]:
    """What the run computed and left: the parts of its segments that are not on the live line, ends included."""
    kept = {stretch.segment: stretch for stretch in live_line(segments)}
    branches = []
    for segment in segments:
        if segment.fork_step is None or segment.last_step is None:
            continue
        first = segment.fork_step
        if segment.number in kept:
            last = kept[segment.number].last
            first = segment.last_step + 1 if last is None else max(last, first)
        if first <= segment.last_step:
            branches.append(Stretch(segment.number, first, segment.last_step + 1))
    return branches
