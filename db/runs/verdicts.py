"""The verdict of a run: one word and one sentence, the same on every page, in the terminal and in the report.

`verdict_of` is pure. It compares the present level of the loss with the level before an incident: whether that incident
counts as closed does not matter. `verdicts` reads what it needs, with a few queries for any number of runs.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.lineage import live_line
from db.models import Event, Incident, Intervention, Run, RunStatus, Segment
from db.run_states import is_holding, is_silent
from db.store import bulk
from lossguard.vocabulary.metrics import short_name
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, LEVEL_ACCEPTED, decode_number
from lossguard.vocabulary.states import (
    INTERVENTIONS_UNDER_WAY,
    LOSS_KINDS,
    IncidentKind,
    IncidentState,
    InterventionState,
    OrderKind,
    Outcome,
    RunState,
    RunVerdict,
)
from lossguard.vocabulary.wording import duration

LEVEL_ROWS = 8
"""Rows whose median is the level of the loss."""
FAR = 0.25
"""Share of the expected loss; a loss further above it has diverged."""
TOLERATED = 2.0
"""Standard deviations of the noise by which the level may lie above the expected loss."""
FALLEN = 0.1
"""Share of the excess that must be gone within some rows for the loss to be recovering."""
LASTING_STEPS = 500
"""Steps after which a smaller excess that does not fall counts as diverged too."""


@dataclass(frozen=True, slots=True)
class Verdict:
    verdict: RunVerdict
    sentence: str

    @property
    def headline(self) -> str:
        """The sentence up to its colon: "DIVERGED", "HELD for 17 min"."""
        return self.sentence.partition(":")[0]

    @property
    def is_training(self) -> bool:
        """True if steps come, as far as is known: only then does a time that is left mean anything."""
        return self.verdict in (RunVerdict.HEALTHY, RunVerdict.RECOVERING, RunVerdict.DIVERGED)


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of the live line, as `RunStatus.losses` keeps it."""

    recent: Sequence[float] = ()
    """The last values, oldest first."""
    marks: Sequence[tuple[int, float]] = ()
    """(step, level) at intervals of steps."""

    def level(self, rows: int = 2 * LEVEL_ROWS) -> float | None:
        """The median of the newer half of the last `rows` values; the newest value where that is not finite."""
        newest = self.recent[-rows:]
        if not newest or not math.isfinite(newest[-1]):
            return newest[-1] if newest else None
        return _median(newest[len(newest) // 2 :])

    def earlier(self, rows: int, since: int) -> float | None:
        """The highest level before the present one: of the older half of these rows, and of the marks from `since`."""
        newest = self.recent[-rows:]
        marks = [level for step, level in self.marks[-2:] if step >= since]
        levels = [_median(newest[: len(newest) // 2]), *marks]
        return max((level for level in levels if level is not None), default=None)


@dataclass(frozen=True, slots=True)
class Trouble:
    """An incident of the live line, and what its signal was expected to be."""

    number: int
    kind: str
    signal: str
    onset_step: int
    expected: float | None = None
    scale: float = 0.0
    is_open: bool = True

    def is_out(self, level: float) -> bool:
        """True if the loss is not back. A smaller excess is a new normal once the incident is closed."""
        if self.signal != "loss" or self.expected is None:
            return False
        least = 0.0 if self.is_open else FAR * abs(self.expected)
        return not level - self.expected <= max(least, TOLERATED * self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictInput:
    """Input of a verdict."""

    state: str = RunState.RUNNING
    now: float
    """Unix seconds, as the other times."""
    reported_at: float
    is_silent: bool = False
    is_collector_down: bool = False
    step: int | None = None
    step_at: float = 0.0
    """Time at which the newest step arrived."""
    losses: Losses = field(default_factory=Losses)
    in_band_since: float
    """Time at which the last incident of the loss ended, or the run began."""
    troubles: Sequence[Trouble] = ()
    held_since: float | None = None
    proposed: bool = False
    """An intervention waits for approval."""
    rollback_to: int | None = None
    """The step of the rollback that is proposed, ordered or applied."""
    ordered: bool = False
    verify_at: int | None = None
    """The applied rollback is verified at this step."""
    restorable: Sequence[int] = ()
    """Steps to which the run can be rolled back."""


def verdict_of(run: VerdictInput) -> Verdict:
    """Return the one verdict of a run. Pure."""
    if run.state != RunState.RUNNING:
        return _ended(run)
    if run.is_collector_down:
        return Verdict(RunVerdict.UNWATCHED, "Not watched: the collector is down, no spike is caught meanwhile")
    if run.is_silent:
        silence = duration(run.now - run.reported_at)
        why = "the process was killed, or cannot reach the collector"
        return Verdict(RunVerdict.UNWATCHED, f"Not watched: no report for {silence}; {why}")
    if run.held_since is not None:
        return Verdict(RunVerdict.HELD, f"HELD for {duration(run.now - run.held_since)}: waits for you")
    if any(each.kind == IncidentKind.STALL and each.is_open for each in run.troubles):
        after = "" if run.step is None else f" after step {run.step:,}"
        return Verdict(RunVerdict.STALLED, f"STALLED: no step for {duration(run.now - run.step_at)}{after}")
    if run.step is None and not run.losses.recent:
        return Verdict(RunVerdict.HEALTHY, "Healthy: no step yet")
    return _running(run, run.step or 0)


def _ended(run: VerdictInput) -> Verdict:
    trouble, level = _trouble(run)
    left = next((each for each in run.troubles if each.is_open), None)
    if trouble is not None:
        word = "with an open incident" if trouble.is_open else "diverged"
        return Verdict(RunVerdict.ENDED_OPEN, f"Ended {word}: {_compared(trouble, level)}")
    if left is not None:
        return Verdict(RunVerdict.ENDED_OPEN, f"Ended with an open incident: {_named(left)}")
    steps = ": no step" if run.step is None else f" at step {run.step:,}"  # some count from 0, others from 1
    loss = "" if level is None else f", loss {_text(level)}"
    return Verdict(RunVerdict.ENDED, f"{run.state.capitalize()}{steps}{loss}")


def _running(run: VerdictInput, step: int) -> Verdict:
    trouble, level = _trouble(run)
    if level is None:
        return Verdict(RunVerdict.UNWATCHED, "Not watched: the run reports no loss")
    if trouble is not None:
        lasted = f", for {step - trouble.onset_step:,} steps" if step > trouble.onset_step else ""
        verdict, word = RunVerdict.RECOVERING, "Recovering"
        if _is_diverged(run, trouble, level, step):
            verdict, word = RunVerdict.DIVERGED, "DIVERGED"
        target = _target(run, trouble.onset_step, verdict)
        return Verdict(verdict, f"{word}: {_compared(trouble, level)}{lasted}{target}")
    not_finite = next((each for each in run.troubles if each.kind == IncidentKind.NONFINITE and each.is_open), None)
    if not_finite is not None and not_finite.signal != "loss":
        target = _target(run, not_finite.onset_step, RunVerdict.DIVERGED)
        name = short_name(not_finite.signal)
        return Verdict(RunVerdict.DIVERGED, f"DIVERGED: {name} not finite since step {not_finite.onset_step:,}{target}")
    if run.verify_at is not None:
        back = "" if run.rollback_to is None else f"rolled back to {run.rollback_to:,}, "
        return Verdict(RunVerdict.RECOVERING, f"Recovering: {back}to be verified at step {run.verify_at:,}")
    others = [_named(each) for each in run.troubles if each.is_open and each.signal != "loss"]
    but = f"; but {others[0]}" if others else ""
    in_band = f"loss in band for {duration(run.now - run.in_band_since)}{_trend(run.losses, level, step)}"
    return Verdict(RunVerdict.HEALTHY, f"Healthy: {in_band}{but}{_target(run, step, RunVerdict.HEALTHY)}")


def _trouble(run: VerdictInput) -> tuple[Trouble | None, float | None]:
    """The incident from which the loss is not back, that with the lowest level before it, and the present level."""
    level = run.losses.level()
    if level is not None and not math.isfinite(level):
        of_loss = [each for each in run.troubles if each.signal == "loss"]
        return (of_loss[0] if of_loss else Trouble(0, IncidentKind.NONFINITE, "loss", run.step or 0)), level
    out = [
        (each.expected or 0.0, since, each)
        for each in run.troubles
        if (since := run.losses.level(_rows(run, each))) is not None and each.is_out(since)
    ]
    if not out:
        return None, level
    _, level, trouble = min(out, key=lambda one: one[0])
    return trouble, level


def _rows(run: VerdictInput, trouble: Trouble) -> int:
    """Rows since the trouble began, as far as they are kept."""
    return min(2 * LEVEL_ROWS, max(1, (run.step or 0) - trouble.onset_step + 1))


def _is_diverged(run: VerdictInput, trouble: Trouble, level: float, step: int) -> bool:
    if not math.isfinite(level) or trouble.expected is None:
        return True
    excess, earlier = level - trouble.expected, run.losses.earlier(_rows(run, trouble), trouble.onset_step)
    least = 0.0 if earlier is None else max(FALLEN * (earlier - trouble.expected), TOLERATED * trouble.scale)
    is_falling = earlier is not None and level < earlier - least
    is_far = excess > FAR * abs(trouble.expected)
    return (is_far or step - trouble.onset_step >= LASTING_STEPS) and not is_falling


def _target(run: VerdictInput, onset_step: int, verdict: RunVerdict) -> str:
    """Return the end of the sentence: what happens, or can be done, about it."""
    to = run.rollback_to
    if run.ordered and to is not None:
        return f". Rolling back to {to:,}"
    if not run.proposed and verdict is RunVerdict.DIVERGED:
        to = max((step for step in run.restorable if step <= onset_step), default=None)
    if to is not None and (run.proposed or verdict is RunVerdict.DIVERGED):
        return f". Roll back to {to:,}?"
    return ". An intervention waits for you" if run.proposed else ""


def _compared(trouble: Trouble, level: float | None) -> str:
    expected = "" if trouble.expected is None else f", expected {_text(trouble.expected)}"
    return f"loss {_text(level)}{expected}"


def _named(trouble: Trouble) -> str:
    if trouble.kind == IncidentKind.STALL:
        return f"no step after {trouble.onset_step:,}"
    return f"{short_name(trouble.signal)} out of band since step {trouble.onset_step:,}"


def _trend(losses: Losses, level: float, step: int) -> str:
    """Return the change of the level since the oldest mark that is kept, as a clause."""
    if not losses.marks or losses.marks[0][0] >= step:
        return ""
    since, before = losses.marks[0]
    return f", {level - before:+.2g} in the last {step - since:,} steps"


def _text(value: float | None) -> str:
    """A loss with at most three digits."""
    if value is None or math.isnan(value):
        return "NaN"
    return f"{value:.3g}" if abs(value) < 1000 or math.isinf(value) else f"{value:,.0f}"


def _median(values: Iterable[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None


# From the store.


def verdicts(
    session: Session, *, runs: Sequence[Run], now: float, is_collector_down: bool = False
) -> dict[int, Verdict]:
    """Return the verdicts of these runs by `Run.pk`."""
    found: dict[int, Verdict] = {}
    for some in bulk.key_parts(run.pk for run in runs):
        pks = set(some)
        read = _Read(session, [run for run in runs if run.pk in pks])
        for run in read.runs:
            found[run.pk] = verdict_of(read.verdict_input(run, now, is_collector_down))
    return found


class _Read:
    """Rows of the store about some runs."""

    def __init__(self, session: Session, runs: Sequence[Run]) -> None:
        self.runs, self._pks = runs, [run.pk for run in runs]
        columns = (RunStatus.step, RunStatus.last_step_at, RunStatus.latest_values, RunStatus.losses)
        rows = session.execute(sa.select(RunStatus.run_pk, *columns).where(RunStatus.run_pk.in_(self._pks)))
        self._statuses = {row.run_pk: row for row in rows}
        of_loss = sa.and_(Incident.signal == "loss", Incident.kind.in_(LOSS_KINDS))
        not_back = sa.and_(of_loss, sa.func.coalesce(Incident.outcome, "") != Outcome.RECOVERED)
        wanted = sa.or_(Incident.state != IncidentState.CLOSED, not_back)
        incidents = queries.by_run(session, self._pks, Incident, wanted, columns=OF_INCIDENT, by=Incident.number)
        self._troubles = _on_live_line(session, incidents)
        is_under_way = Intervention.state.in_(INTERVENTIONS_UNDER_WAY)
        self._interventions = queries.by_run(
            session, self._pks, Intervention, is_under_way, columns=OF_INTERVENTION, by=Intervention.number
        )
        ended = sa.select(Incident.run_pk, sa.func.max(Incident.changed_at))
        ended = ended.where(Incident.run_pk.in_(self._pks), of_loss).group_by(Incident.run_pk)
        self._changed_at = {pk: at for pk, at in session.execute(ended)}

    def verdict_input(self, run: Run, now: float, is_collector_down: bool) -> VerdictInput:
        status, under_way = self._statuses.get(run.pk), self._interventions.get(run.pk, [])
        holds = [each for each in under_way if is_holding(each)]
        rollbacks = [each for each in under_way if each.kind == OrderKind.ROLLBACK]
        newest = rollbacks[-1] if rollbacks else None
        is_applied = newest is not None and newest.state == InterventionState.APPLIED
        return VerdictInput(
            state=run.state,
            now=now,
            reported_at=run.last_report_at,
            is_silent=is_silent(run, now),
            is_collector_down=is_collector_down,
            step=None if status is None else status.step,
            step_at=run.last_report_at if status is None else status.last_step_at,
            losses=Losses() if status is None else _losses(status.losses, status.latest_values),
            in_band_since=max(run.started_at, self._changed_at.get(run.pk) or 0.0),
            troubles=self._troubles.get(run.pk, ()),
            held_since=holds[-1].changed_at if holds else None,
            proposed=any(each.state == InterventionState.PROPOSED for each in under_way),
            rollback_to=None if newest is None else newest.rewind_to,
            ordered=newest is not None and newest.state in (InterventionState.APPROVED, InterventionState.ORDERED),
            verify_at=newest.details.get("verify_at") if newest is not None and is_applied else None,
            restorable=run.restorable_steps if CAN_ROLL_BACK in run.capabilities else (),
        )


OF_INCIDENT = ("number", "segment", "kind", "state", "signal", "onset_step", "detected_step", "details")
OF_INTERVENTION = ("kind", "state", "rewind_to", "changed_at", "details")


def _on_live_line(session: Session, incidents: dict[int, list[Any]]) -> dict[int, list[Trouble]]:
    """The incidents by run, without those on steps that were rolled back and those whose level a person accepted."""
    pks = list(incidents)
    if not pks:
        return {}
    forked = sa.select(Segment.run_pk).where(Segment.run_pk.in_(pks), Segment.number > 0)  # others have one line
    segments = queries.by_run(session, pks, Segment, Segment.run_pk.in_(forked), by=Segment.number)
    events = sa.select(Event.run_pk, sa.func.max(Event.step)).where(Event.run_pk.in_(pks), Event.kind == LEVEL_ACCEPTED)
    accepted = {pk: step for pk, step in session.execute(events.group_by(Event.run_pk))}
    found = {}
    for pk, rows in incidents.items():
        live = {part.segment: part for part in live_line(segments[pk])}
        found[pk] = [
            _trouble_of(row)
            for row in rows
            if not live or (row.segment in live and live[row.segment].holds(row.detected_step))
            if row.signal != "loss" or row.detected_step >= (accepted.get(pk) or 0)
        ]
    return found


def _trouble_of(row: Any) -> Trouble:
    expected, scale = (_finite(row.details.get(name)) for name in ("expected", "scale"))
    is_known = (expected, scale) != (0.0, 0.0)  # the detection stores zeros before it has a baseline
    return Trouble(
        number=row.number,
        kind=row.kind,
        signal=row.signal,
        onset_step=row.onset_step,
        expected=expected if is_known else None,
        scale=scale or 0.0,
        is_open=row.state != IncidentState.CLOSED,
    )


def _losses(kept: Any, latest: Any) -> Losses:
    """Read the losses that a status keeps; only the newest loss where they are not readable."""
    try:
        recent = [decode_number(value) for value in kept["recent"]]
        marks = [(int(step), float(level)) for step, level in kept["marks"]]
        return Losses([value for value in recent if value is not None], marks)
    except (KeyError, TypeError, ValueError):
        loss = _number(latest.get("loss")) if isinstance(latest, dict) else None
        return Losses([] if loss is None else [loss])


def _number(value: Any) -> float | None:
    try:
        return decode_number(value)
    except ValueError:
        return None


def _finite(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and math.isfinite(number) else None
