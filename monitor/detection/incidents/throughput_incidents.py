"""The incidents of the speed of a run: a stall and a slowdown, at most one of each.

No policy answers them, they cost no budget, and they neither hide nor delay incidents of the signals.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Effect, Incident, IncidentChanged
from monitor.detection.incidents.open_incident import closed_incident
from monitor.detection.rows import Row, Rows
from monitor.detection.throughput.durations import RowGaps
from monitor.detection.throughput.pace import Change, Finding, Pace, SlowdownCause


class Sign(StrEnum):
    """Sign of life of a run without new steps."""

    HEARTBEATS = "heartbeats"  # the process lives
    NOTHING = "nothing"
    UNKNOWN = "unknown"  # its client sends no heartbeats


MEANING = {
    Sign.HEARTBEATS: "Heartbeats still arrive, so the process lives and the network works: the loop hangs or waits, "
    "perhaps in a collective operation, on its data or on a disk.",
    Sign.NOTHING: "No reports arrive at all, not even heartbeats: the process or its machine is dead, or the network "
    "between it and the collector is.",
    Sign.UNKNOWN: "The client of this run sends no heartbeats, so it is not known whether its process lives.",
}


@dataclass(frozen=True, slots=True)
class Silence:
    """A run without new steps."""

    seconds: float
    """Since the newest step, or since the run was registered again."""
    limit: float
    """Seconds that are a stall, by the run's own tail."""
    sign: Sign


def stall(number: int, step: int, silence: Silence) -> Incident:
    """An open incident: it needs a person. `step`: the newest one, -1 before the first."""
    since = f"since step {step}" if step >= 0 else "before the first step"
    return Incident(
        number=number,
        kind=IncidentKind.STALL,
        state=IncidentState.OPEN,
        signal="step_seconds",
        onset_step=max(step, 0),
        detected_step=max(step, 0),
        peak_step=max(step, 0),
        peak_value=silence.seconds,
        end_step=None,
        score=round(silence.seconds / silence.limit, 3),
        expected=silence.limit,
        scale=0.0,
        outcome=Outcome.ONGOING,
        reasons=[
            f"No step has arrived for {duration(silence.seconds)}, {since}. By the longest times between two rows of "
            f"this run, up to {duration(silence.limit)} would be usual.",
            MEANING[silence.sign],
        ],
    )


def duration(seconds: float) -> str:
    """Return the duration in words."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


END_REASONS = {
    Change.RECOVERED: "The run is as fast as before.",
    Change.ADOPTED: "The run has stayed at this speed for so long that it counts as normal from now on.",
    Change.DECLARED: "A change was declared: the normal speed is learnt anew.",
}


def slowdown(number: int, finding: Finding) -> Incident:
    """An open incident; nothing is ordered for it."""
    usual, value, noise = in_unit(finding)
    return Incident(
        number=number,
        kind=IncidentKind.SLOWDOWN,
        state=IncidentState.OPEN,
        signal=signal_of(finding),
        onset_step=finding.onset_step,
        detected_step=finding.timing.last_step,
        peak_step=finding.timing.last_step,
        peak_value=value,
        end_step=None,
        score=round(finding.score, 3),
        expected=usual,
        scale=noise,
        outcome=Outcome.ONGOING,
        reasons=[_what(finding), *_waiting(finding)],
    )


def signal_of(finding: Finding) -> str:
    """The metric that the values of the incident are in."""
    if finding.cause is SlowdownCause.WAITING:
        return "data_seconds"
    return "throughput" if finding.timing.counts_tokens else "step_seconds"


def in_unit(finding: Finding) -> tuple[float, float, float]:
    """(usual, now, standard deviation) in the unit of the signal; a share of the time for `data_seconds`."""
    usual, value, noise = finding.usual, finding.value, finding.noise
    if signal_of(finding) == "throughput" and usual > 0 and value > 0:
        return 1 / usual, 1 / value, noise / usual**2
    return usual, value, noise


def _what(finding: Finding) -> str:
    steps = f"since step {finding.onset_step}"
    usual, value, _ = in_unit(finding)
    if finding.cause is SlowdownCause.WAITING:
        return f"The loop waits for data in {value:.0%} of the time {steps}; usual were {usual:.0%}."
    times = finding.value / finding.usual if finding.usual > 0 else math.inf
    per = "token" if finding.timing.counts_tokens else "step"
    now = f"{value:.4g} tokens per second instead of {usual:.4g}"
    if per == "step":
        now = f"{value:.3g} s per step instead of {usual:.3g} s"
    how = "has become" if finding.cause is SlowdownCause.SUDDEN else "has slowly become"
    return f"The time per {per} {how} {times:.2f} times as long {steps}: {now}. Single slow steps are not counted."


def _waiting(finding: Finding) -> list[str]:
    """Say whether the data are to blame, if the loop reports how long it waits for them."""
    now, usual = finding.timing.waiting, finding.usual_waiting
    if finding.cause is SlowdownCause.WAITING or now is None or usual is None:
        return []
    return [f"The loop waits for data in {now:.0%} of the time; usual were {usual:.0%}."]


SPEED_EVENTS = frozenset({"batch_size", "data_mix"})
"""Declared events after which a step may take another time."""
MAX_PAUSES = 64
"""Announced pauses that are still to come."""

TakeNumber = Callable[[], int]


@dataclass(frozen=True, slots=True)
class StepsAgain:
    """The first row after a stall."""

    step: int
    seconds: float | None
    """Since the row before it, by the trainer's clock; None where that is not known."""


@dataclass(slots=True)
class ThroughputIncidents:
    """Reads the times of the rows, and keeps what they and the clock of the collector show."""

    gaps: RowGaps = field(default_factory=RowGaps)
    pace: Pace = field(default_factory=Pace)
    stall: Incident | None = None
    slowdown: Incident | None = None
    pauses: list[int] = field(default_factory=list)
    """The loop has announced a pause before the first row from each of these steps on."""

    # Rows

    def observe(self, rows: Rows) -> Iterator[tuple[int, Finding | StepsAgain]]:
        """Yield the findings in the rows, each with the number of rows up to it."""
        if self.stall is not None and len(rows):
            last = self.gaps.last_time
            seconds = None if rows.times is None or last is None else float(rows.times[0] - last)
            yield 1, StepsAgain(int(rows.steps[0]), seconds)
        start = 0
        while self.pauses and len(rows) and rows.steps[-1] >= self.pauses[0]:
            end = max(start, int(np.searchsorted(rows.steps, self.pauses.pop(0))))
            yield from self._read(rows[start:end], start)
            start = end
            self.skip()
        yield from self._read(rows[start:], start)

    def is_plain(self, step: int) -> bool:
        """True if nothing but the time matters of a row at this step: then `observe_row` may read it."""
        return self.stall is None and not (self.pauses and step >= self.pauses[0]) and not self.pace.is_due(step)

    def observe_row(self, row: Row) -> Finding | None:
        """Return the finding in a single row."""
        if row.time is not None:
            self.gaps.add(row.time)
        return self.pace.observe_row(row)

    def _read(self, rows: Rows, start: int) -> Iterator[tuple[int, Finding]]:
        self.gaps.update(rows)
        for end, finding in self.pace.observe(rows):
            yield start + end, finding

    def report(self, finding: Finding | StepsAgain, take_number: TakeNumber) -> list[Effect]:
        """An incident of the speed begins, grows or ends."""
        if isinstance(finding, StepsAgain):
            return self._end_stall(finding)
        if finding.change is Change.BEGAN:
            self.slowdown = slowdown(take_number(), finding)
            return [IncidentChanged(self.slowdown)]
        if self.slowdown is None:  # a state of another release
            return []
        if finding.change is Change.GREW:
            _, value, _ = in_unit(finding)
            score, step = round(finding.score, 3), finding.timing.last_step
            self.slowdown = replace(self.slowdown, score=score, peak_step=step, peak_value=value)
            return [IncidentChanged(self.slowdown)]
        outcome = Outcome.RECOVERED if finding.change is Change.RECOVERED else Outcome.ONGOING
        ended = closed_incident(self.slowdown, finding.timing.last_step, outcome, END_REASONS[finding.change])
        self.slowdown = None
        return [IncidentChanged(ended)]

    # The clock

    def report_stall(self, silence: Silence, step: int, take_number: TakeNumber) -> list[Effect]:
        """Report that no step has come since `step` (-1: none yet). Nothing new while a stall is open."""
        if self.stall is not None:
            return []
        self.stall = stall(take_number(), step, silence)
        return [IncidentChanged(self.stall)]

    def _end_stall(self, again: StepsAgain) -> list[Effect]:
        incident = self.stall
        assert incident is not None
        self.stall = None
        reason = f"Steps came again with step {again.step}."
        if again.seconds is not None and again.seconds > 0:
            incident = replace(incident, peak_value=max(again.seconds, incident.peak_value))
            reason += f" By the clock of the trainer, {duration(again.seconds)} lie between it and the one before."
        return [IncidentChanged(closed_incident(incident, again.step, Outcome.RECOVERED, reason))]

    def end_run(self, reason: str, step: int) -> list[Effect]:
        """The run has ended: nothing is waited for any more."""
        is_open = (each for each in (self.stall, self.slowdown) if each is not None)
        effects: list[Effect] = [
            IncidentChanged(closed_incident(each, step, Outcome.ONGOING, reason)) for each in is_open
        ]
        self.stall = self.slowdown = self.pace.slow = None
        return effects

    # Actions of the trainer

    def declare(self, step: int, kind: str) -> None:
        if kind in SPEED_EVENTS:
            self.pace.declare(step)

    def expect_pauses(self, steps: Iterable[int]) -> None:
        """The time before the first row from each of `steps` on is an announced pause."""
        self.pauses = sorted({*self.pauses, *steps})[-MAX_PAUSES:]

    def skip(self) -> None:
        """Ignore the time up to the next row."""
        self.gaps.skip()
        self.pace.skip()

    def begin_segment(self, *, is_new_process: bool) -> None:
        """Begin a segment: the time since the last one is no step."""
        self.pauses = []
        self.gaps.skip()
        self.pace.begin_segment(is_new_process=is_new_process)
