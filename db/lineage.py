"""The tree of a run's segments, and the live line through it. Pure: values in, values out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from db.models import BESIDE, Event, Segment
from lossguard.vocabulary.protocol import CHECKPOINT_UNCERTIFIED, REMEDY
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts, says_source
from lossguard.vocabulary.states import SegmentReason

OUTLIER = "outlier"
"""Kind of the event that the detection stores for a row out of band without an incident."""


class Line(StrEnum):
    """A selection of a run's steps."""

    LIVE = "live"  # the path from the root to the newest segment: every step once
    DISCARDED = "discarded"  # steps that were computed and then rolled back
    ALL = "all"  # both, segment by segment


@dataclass(frozen=True, slots=True)
class StepRange:
    """Steps [first, last) of one segment; `last` None means that it has no end."""

    segment: int
    first: int
    last: int | None

    def holds(self, step: int) -> bool:
        return self.first <= step and (self.last is None or step < self.last)

    def after(self, step: int) -> "StepRange":
        """The rest of the range behind a step."""
        return StepRange(self.segment, step + 1, self.last)

    def within(self, first: int, end: int) -> "StepRange | None":
        """The part of the range in [first, end); None if there is none."""
        low, high = max(self.first, first), end if self.last is None else min(self.last, end)
        return StepRange(self.segment, low, high) if low < high else None


END = 2**63 - 1
"""Above every step."""


def end_of(step_range: StepRange) -> int:
    """The first step that is not in the range."""
    return END if step_range.last is None else step_range.last


def extent(segment: Segment) -> StepRange | None:
    """The steps of a whole segment, from its first one to its last one; None if it has none."""
    if segment.first_step is None or segment.last_step is None:
        return None
    return StepRange(segment.number, segment.first_step, segment.last_step + 1)


def tree(segments: Sequence[Segment]) -> dict[int | None, list[int]]:
    """Parent -> the segments that forked off it, by number; None -> the roots (several if the run started over)."""
    children: dict[int | None, list[int]] = {}
    for segment in sorted(segments, key=lambda segment: segment.number):
        children.setdefault(segment.parent, []).append(segment.number)
    return children


def live_line(segments: Sequence[Segment]) -> list[StepRange]:
    """The path from the root to the newest segment, oldest range first; each range ends where its child forked off.

    The newest segment is the last one that the process with the lease sent to the collector (`Segment.live_order`).
    Segments whose first step is unknown (a resume before its first report) are left out.
    """
    opened = in_opening_order(segments)
    return line_to(opened, opened[-1].number) if opened else []


def line_to(segments: Sequence[Segment], head: int) -> list[StepRange]:
    """Return the path from the root to segment `head`: the live line when `head` was the newest segment."""
    return list(_tail(_parts([segment for segment in segments if segment.fork_step is not None]).get(head), 0))[::-1]


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment from its first step on, as a part of the lines through it."""

    segment: int
    first: int
    above: "_Part | None"
    """The part that ends at `first`."""


def _parts(segments: Sequence[Segment]) -> dict[int, _Part]:
    """Number -> the last part of the line to this segment. All of them are found in one pass."""
    numbered: dict[int | None, Segment] = {segment.number: segment for segment in segments}
    found: dict[int | None, _Part] = {}
    for segment in segments:
        path = [segment]
        while (parent := numbered.get(path[-1].parent)) is not None and parent.number not in found:
            path.append(parent)
        for one in reversed(path):
            assert one.fork_step is not None
            above = found.get(one.parent)
            while above is not None and above.first >= one.fork_step:  # the child forked off before this one began
                above = above.above
            found[one.number] = _Part(one.number, one.fork_step, above)
    return {number: part for number, part in found.items() if number is not None}


def _tail(part: _Part | None, step: int) -> Iterator[StepRange]:
    """The ranges that end after `step`, on the line whose last part this is; the newest one first."""
    last: int | None = None
    while part is not None and (last is None or last > step):
        yield StepRange(part.segment, part.first, last)
        last = part.first
        part = part.above


def parent_at(segments: Sequence[Segment], fork_step: int) -> int | None:
    """The live segment that holds the step before `fork_step`, by number; None when the fork is a new root."""
    before = [step_range for step_range in live_line(segments) if step_range.first < fork_step]
    return before[-1].segment if before else None


def declared(
    segments: Sequence[Segment], events: Sequence[Event], line: Sequence[StepRange], first: int, last: int
) -> list[tuple[int, str]]:
    """(step, kind) of the declared events and of the resumes within the steps [first, last) of a line, in order."""
    found = [
        (event.segment, event.step, event.kind)
        for event in events
        if event.step is not None and event.kind not in (OUTLIER, REMEDY, CHECKPOINT_UNCERTIFIED)
    ]
    found += [
        (segment.number, segment.fork_step, segment.reason)
        for segment in segments
        if segment.reason == SegmentReason.RESUME and segment.fork_step is not None
    ]
    parts = {part.segment: part for part in line}
    return sorted(
        (step, kind)
        for number, step, kind in found
        if first <= step < last and number in parts and parts[number].holds(step)
    )


def source_of(events: Iterable[Event]) -> SourceFacts:
    """Return how the rows of a run are made, by the newest of its events that says so."""
    newest = [event.details for event in events if says_source(event.kind, event.details)][-1:]
    return SourceFacts.from_details(newest[0]) if newest else EVERY_STEP


def discarded(segments: Sequence[Segment]) -> list[StepRange]:
    """The ranges of the run's segments that are not on the live line. Each of them has an end."""
    live = {step_range.segment: step_range for step_range in live_line(segments)}
    found: list[StepRange | None] = []
    for segment in segments:
        whole, part = extent(segment), live.get(segment.number)
        if whole is None or part is None:
            found.append(whole)
        else:
            found += [whole.within(0, part.first), whole.within(end_of(part), END)]
    return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True)
class Fork:
    """A segment that forked off before the end of the one before it: a rollback, or a restart from a checkpoint."""

    segment: Segment
    discarded: tuple[StepRange, ...]
    """The part of the line that was live until then, from the fork step to its end. Each range has an end."""
    before: StepRange | None
    """The step before the fork step, on that line; None if the line has none."""


def forks(segments: Sequence[Segment]) -> list[Fork]:
    """Return all forks in order. Every step that is on no live line any more is in exactly one of them.

    Lines are read from their ends only as far as they were discarded, so that the cost does not grow with their length.
    """
    opened = in_opening_order(segments)
    extents = {one.number: extent(one) for one in opened}
    parts = _parts(opened)
    found = []
    for previous, segment in pairwise(opened):
        fork = segment.fork_step
        assert fork is not None
        tail = list(_tail(parts[previous.number], fork - 1))[::-1]
        ranges = tuple(
            one
            for part in tail
            if (whole := extents[part.segment]) and (one := whole.within(max(part.first, fork), end_of(part)))
        )
        if ranges:
            before = next((StepRange(part.segment, fork - 1, fork) for part in tail if part.holds(fork - 1)), None)
            found.append(Fork(segment, ranges, before))
    return found


def in_opening_order(segments: Sequence[Segment]) -> list[Segment]:
    """The segments that have led the live line and whose first step is known, in the order in which they began to."""
    begun = (segment for segment in segments if segment.fork_step is not None and segment.live_order != BESIDE)
    return sorted(begun, key=lambda segment: segment.live_order)


def step_ranges(segments: Sequence[Segment], line: Line | int) -> list[StepRange]:
    """The ranges of a line, or one whole segment by its number."""
    if not isinstance(line, Line):
        return [StepRange(line, 0, None)]
    if line is Line.LIVE:
        return live_line(segments)
    if line is Line.DISCARDED:
        return discarded(segments)
    return [StepRange(segment.number, 0, None) for segment in segments]
