"""Goodput: what the time of a run was used for, second by second. Pure: values in, values out.

Goodput is the share of the time since the run's start that trained the model as it is now: the time of the steps on
the live line. The rest was lost, each second to exactly one cause. The term and the kind of accounting are those of
Google's ML Goodput ("Introducing ML Productivity Goodput", Google Cloud blog, 2024).

All times are unix seconds, durations seconds. Times come from several clocks, and may go back: a moment that was
accounted for is never accounted for again, so that the causes add up to the time since the start whatever the clocks
say.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from lossguard.vocabulary.states import RunState, SegmentReason


class TimeCause(StrEnum):
    """Use or loss of a second of a run."""

    TRAINING = "training"  # steps on the live line
    SPIKE = "spike"  # steps that a rollback discarded, and the restore
    RESTART = "restart"  # steps that a new process had to repeat, and the time from the last step until it trained
    REWIND = "rewind"  # steps that the loop discarded by going back itself
    CHECKPOINT = "checkpoint"  # saves, as long as they held the loop up
    EVALUATION = "evaluation"  # as the loop reports it
    WAITING = "waiting_for_person"  # holds, and steps that were discarded after a person was asked to decide
    HANG = "hang"  # no step for much longer than usual, and nothing says why
    STARTUP = "startup"  # until the first step
    OTHER = "other"  # between the steps, announced pauses, or after the last step


CAUSES: Mapping[str, TimeCause] = {
    SegmentReason.START: TimeCause.RESTART,  # the first one of a run is its start-up, see `cause_of`
    SegmentReason.RESUME: TimeCause.RESTART,
    SegmentReason.ROLLBACK: TimeCause.SPIKE,
    SegmentReason.REWIND: TimeCause.REWIND,
}

MIN_HANG_SECONDS = 120.0
HANG_STEPS = 10.0

Interval = tuple[float, float]


def cause_of(reason: str, *, is_first: bool = False) -> TimeCause:
    """The cause of the time around the opening of a segment, and of the steps that it discarded."""
    return TimeCause.STARTUP if is_first else CAUSES.get(reason, TimeCause.OTHER)


def hang_seconds(seconds: float, usual: float) -> float:
    """Return the seconds lost to a hang: of `seconds` without a step, less what is explained; `usual`: the usual time.

    It is a hang from MIN_HANG_SECONDS and HANG_STEPS times the usual on; then all beyond the usual is lost.
    """
    return seconds - usual if seconds >= max(MIN_HANG_SECONDS, HANG_STEPS * usual) else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Consecutive steps of a segment, with the time from the step before them to the last one."""

    begin: float
    """Time of the step before; for the first step of a segment, the time at which the segment was opened."""
    end: float
    num_steps: int
    cause: TimeCause = TimeCause.TRAINING
    """Cause of its steps: training on the live line, else why they were discarded."""
    step_seconds: float | None = None
    """Mean time per step, as the loop reports it; None where it does not."""
    checkpoint_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    pause_seconds: float = 0.0
    """Seconds of pauses that the loop announced, other than evaluations that it reports."""
    is_single: bool = False
    """True if it is one row: only then a long time is known to be without steps."""

    @property
    def explained(self) -> float:
        """Seconds that the loop reports to be no training."""
        return self.checkpoint_seconds + self.evaluation_seconds + self.pause_seconds

    @property
    def unexplained(self) -> float:
        """The rest of its duration."""
        return max(0.0, self.end - self.begin - self.explained)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentTimes:
    """A segment's time, from its opening on."""

    opened_at: float
    cause: TimeCause
    """Cause of the time from the last step of the segment before until its own first step."""
    stretches: Sequence[Stretch] = ()
    """Stretches in step order; the first one is its first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTimes:
    """Everything that decides what the time of a run was used for."""

    started_at: float
    until: float
    """End of the run; of a running one: now."""
    state: str
    segments: Sequence[SegmentTimes] = ()
    """Segments in the order in which they were opened."""
    holds: Sequence[Interval] = ()
    """Times in which the run waited for a person, in order and without overlaps."""
    decisions: Sequence[Interval] = ()
    """Times in which a person was asked whether to roll back, and training went on; likewise."""
    expected_by: float | None = None
    """The loop has announced a pause until then."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The time of a run by cause."""

    seconds: Mapping[TimeCause, float]
    """Seconds of every cause."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float | None:
        """The share of training, 0 to 1; None while no time has passed."""
        return self.share(TimeCause.TRAINING)

    def share(self, cause: TimeCause) -> float | None:
        """The share of a cause, 0 to 1; None while no time has passed."""
        return self.seconds[cause] / self.total if self.total > 0 else None

    def largest_first(self) -> list[TimeCause]:
        """The causes that took any time: training, then the largest."""
        found = [cause for cause, seconds in self.seconds.items() if seconds > 0]
        return sorted(found, key=lambda cause: (cause is not TimeCause.TRAINING, -self.seconds[cause]))


def usual_step_seconds(segments: Sequence[SegmentTimes]) -> float:
    """The median time per step over the stretches of the live line, else over all; 0 without steps."""
    later = [stretch for segment in segments for stretch in segment.stretches[1:] if stretch.num_steps > 0]
    live = [stretch for stretch in later if stretch.cause is TimeCause.TRAINING] or later
    return median([stretch.unexplained / stretch.num_steps for stretch in live]) if live else 0.0


def suspects(segment: SegmentTimes, usual: float, holds: Sequence[Interval]) -> Iterator[tuple[float, int]]:
    """(excess seconds, index) of the stretches of several rows that may contain a hang."""
    for index, stretch in enumerate(segment.stretches):
        held = overlap(holds, stretch.begin, stretch.end)
        excess = stretch.unexplained - held - stretch.num_steps * usual
        if not stretch.is_single and excess >= MIN_HANG_SECONDS / 2:
            yield excess, index


def break_down(times: RunTimes, usual: float | None = None) -> Breakdown:
    """The time of a run by cause; `usual` is the usual time per step, by default the one of these stretches."""
    account = _Account(times, usual_step_seconds(times.segments) if usual is None else usual)
    openings = [max(times.started_at, segment.opened_at) for segment in times.segments[1:]]
    for index, segment in enumerate(times.segments):
        closes_at = openings[index] if index < len(openings) else times.until
        account.take_segment(segment, closes_at)
        if index < len(openings):
            account.take_gap(closes_at, times.segments[index + 1])
    account.take_rest()
    return Breakdown(account.seconds)


@dataclass(slots=True)
class _Account:
    """The account up to the moment `at`."""

    times: RunTimes
    usual: float
    at: float = 0.0
    has_steps: bool = False
    """True if the newest segment has."""
    seconds: dict[TimeCause, float] = field(default_factory=lambda: dict.fromkeys(TimeCause, 0.0))

    def __post_init__(self) -> None:
        self.at = self.times.started_at

    def take_segment(self, segment: SegmentTimes, closes_at: float) -> None:
        """Take a segment's steps up to the opening of the next one: a process that went on was not the run."""
        self.has_steps = bool(segment.stretches)
        for index, stretch in enumerate(segment.stretches):
            end = min(stretch.end, closes_at)
            if index == 0:
                usual = min(self.usual * stretch.num_steps, end - self.at)
                self._take_steps(stretch, end, usual=usual, rest=segment.cause)
            else:
                self._take_steps(stretch, end, rest=TimeCause.OTHER)
        if not segment.stretches:
            self.take_gap(closes_at, segment)

    def take_gap(self, end: float, segment: SegmentTimes) -> None:
        """The time up to `end`, in which `segment` was about to begin.

        A segment that was opened by its first row has done the steps of that row before.
        """
        begin, seconds = self._advance(end)
        portions = [(TimeCause.WAITING, overlap(self.times.holds, begin, self.at))]
        if segment.stretches:
            first = segment.stretches[0]
            portions.append((first.cause, self.usual * first.num_steps - max(0.0, first.end - end)))
        self._divide(seconds, portions, rest=segment.cause)

    def take_rest(self) -> None:
        """The time after the last step."""
        begin, seconds = self._advance(self.times.until)
        if not self.has_steps:
            self._divide(seconds, [], rest=TimeCause.STARTUP)
            return
        is_running = self.times.state == RunState.RUNNING
        held = overlap(self.times.holds, begin, self.times.until)
        is_announced = self.times.expected_by is not None and self.times.expected_by >= self.times.until
        is_hang = not is_announced and self.times.state != RunState.FINISHED
        step = (TimeCause.TRAINING, self.usual if is_running else 0.0)
        hang = (TimeCause.HANG, hang_seconds(seconds - held, self.usual) if is_hang else 0.0)
        self._divide(seconds, [(TimeCause.WAITING, held), hang, step], rest=TimeCause.OTHER)

    def _take_steps(self, stretch: Stretch, end: float, *, rest: TimeCause, usual: float | None = None) -> None:
        """`usual`: the most that its steps took, where the stretch is longer for a reason that is known (`rest`)."""
        begin, seconds = self._advance(end)
        held = overlap(self.times.holds, begin, self.at)
        explained = held + stretch.explained
        # A pause is announced until the next row, whose steps are trained within it.
        rests = (
            seconds - held - stretch.checkpoint_seconds - stretch.evaluation_seconds - stretch.num_steps * self.usual
        )
        pause = min(stretch.pause_seconds, rests) if usual is None else stretch.pause_seconds
        hang = 0.0
        if stretch.is_single and usual is None:
            hang = hang_seconds(seconds - explained, stretch.num_steps * self.usual)
        reported = None if stretch.step_seconds is None else stretch.step_seconds * stretch.num_steps
        work = usual if usual is not None else seconds if reported is None else reported
        portions = [
            (TimeCause.WAITING, held),
            (TimeCause.CHECKPOINT, stretch.checkpoint_seconds),
            (TimeCause.EVALUATION, stretch.evaluation_seconds),
            (rest, pause),
            (TimeCause.HANG, hang),
        ]
        if stretch.cause is not TimeCause.TRAINING:
            asked = min(work, overlap(self.times.decisions, begin, self.at))
            portions.append((TimeCause.WAITING, asked))
            work -= asked
        self._divide(seconds, [*portions, (stretch.cause, work)], rest=rest)

    def _advance(self, end: float) -> tuple[float, float]:
        """(begin, duration) of the time up to `end` that is not accounted for yet."""
        begin = self.at
        self.at = max(begin, min(end, self.times.until))
        return begin, self.at - begin

    def _divide(self, seconds: float, portions: Sequence[tuple[TimeCause, float]], *, rest: TimeCause) -> None:
        """Divide what is left: each portion takes as much as it asks for."""
        for cause, asked in portions:
            taken = min(seconds, max(0.0, asked))
            self.seconds[cause] += taken
            seconds -= taken
        self.seconds[rest] += seconds


def overlap(intervals: Sequence[Interval], begin: float, end: float) -> float:
    """Seconds of [begin, end] that lie in `intervals`, which are in order and do not overlap."""
    index, seconds = bisect_left(intervals, begin, key=lambda one: one[1]), 0.0
    while index < len(intervals) and intervals[index][0] < end:
        seconds += max(0.0, min(end, intervals[index][1]) - max(begin, intervals[index][0]))
        index += 1
    return seconds


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Return the moments without overlaps, in order."""
    found: list[Interval] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        elif last > first:
            found.append((first, last))
    return found
