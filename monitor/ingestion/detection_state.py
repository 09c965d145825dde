"""Between the pure detection and the store: brings a run's Watch up, feeds it, and writes what it concludes.

Everything here happens inside the transaction of the report that caused it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from sqlalchemy.orm import Session

from db import commands, lineage, queries
from db.lineage import StepRange
from db.models import Order, Run, Segment
from lossguard.json_values import plain_json
from lossguard.protocol import CAN_ROLL_BACK, encode_number
from lossguard.states import InterventionState
from monitor.detection import (
    DetectionEngine,
    Effect,
    Incident,
    IncidentChanged,
    Intervention,
    InterventionChanged,
    Outlier,
    Rows,
)
from monitor.detection.interventions import run_policy
from monitor.ingestion.columns import stored_rows

SNAPSHOT_EVERY = 250
"""Steps between two kept detectors' states; a fork relearns at most about so many steps from the stored rows."""

TAKEN_BACK = (InterventionState.WITHDRAWN, InterventionState.REJECTED)


def bring_up(session: Session, run: Run) -> DetectionEngine:
    """The run's Watch as it stands after the last report."""
    return brought_up(session, run)[0]


def brought_up(session: Session, run: Run) -> tuple[DetectionEngine, int]:
    """The same, as it was written down and the rows since fed to it; and how many rows these were.

    The rows lead to nothing: a report whose rows did was written down with what they led to.
    """
    policy = run_policy.policy_of(run.policy)
    watch = DetectionEngine(run_policy.settings_of(run.policy), policy, can_roll_back=CAN_ROLL_BACK in run.capabilities)
    stored = queries.detection_state(session, run=run)
    if stored is None:  # of a young run nothing may be written down yet
        return watch, _catch_up(session, run, watch, StepRange(0, 0, None))
    if new := watch.load_state_dict(stored.state):
        _relearn(session, run, watch, new)
    watch.set_policy(policy)
    if stored.segment is None:
        return watch, 0
    first = 0 if stored.seen_step is None else stored.seen_step + 1
    return watch, _catch_up(session, run, watch, StepRange(stored.segment, first, None))


def _relearn(session: Session, run: Run, watch: DetectionEngine, signals: Iterable[str]) -> None:
    """Feed the last rows that the stored state has seen to the detectors of signals that it lacks."""
    last = watch.last_step + 1
    first = max(last - SNAPSHOT_EVERY, 0)
    watch.relearn(signals, _history(session, run, first, last), declared(session, run, first, last))


def _catch_up(session: Session, run: Run, watch: DetectionEngine, unseen: StepRange) -> int:
    """Feed it what it has not seen: the number of rows."""
    fed = 0
    for steps in queries.steps_of(session, run=run, step_range=unseen):
        watch.feed(stored_rows(steps))
        fed += len(steps)
    return fed


def put_down(
    session: Session,
    run: Run,
    watch: DetectionEngine,
    effects: Iterable[Effect],
    *,
    segment: Segment | None,
    now: float,
) -> None:
    """Write what the Watch concluded, then where it stands: it follows `segment`, and has seen all of it."""
    number, seen = (0, None) if segment is None else (segment.number, segment.last_step)
    for effect in effects:
        _record(session, run, effect, number, now)
    commands.save_detection_state(session, run=run, state=watch.state_dict(), segment=number, seen_step=seen)


def snapshot(
    session: Session, run: Run, watch: DetectionEngine, *, segment: int, before: int | None, step: int
) -> None:
    """Keep the detectors' state when the segment has passed another multiple of SNAPSHOT_EVERY steps."""
    if before is None or step // SNAPSHOT_EVERY > before // SNAPSHOT_EVERY:
        commands.save_snapshot(session, run=run, segment=segment, step=step, state=watch.detectors_state())


def fork(session: Session, run: Run, watch: DetectionEngine, segment: Segment) -> list[Effect]:
    """A new segment begins: put the detectors back to where they stood before it on the live line."""
    step = segment.fork_step
    assert step is not None
    known = queries.snapshot_before(session, run=run, step=step)
    first, state = (0, None) if known is None else (known[0] + 1, known[1])
    earliest = max(first - SNAPSHOT_EVERY, 0)
    order = None if segment.order_id is None else session.get(Order, segment.order_id)
    return watch.fork(
        step,
        segment.reason,
        _history(session, run, first, step),
        state,
        obeyed=order.intervention if order is not None and order.run_pk == run.pk else None,
        declared=declared(session, run, earliest, step),
        earlier=_history(session, run, earliest, first),
    )


def declared(session: Session, run: Run, first: int, last: int) -> list[tuple[int, str]]:
    """(step, kind) of what the live line's steps [first, last) announced: declared events, and where it was resumed."""
    segments, line = queries.segments(session, run=run), queries.live(session, run=run)
    return lineage.declared(segments, queries.events(session, run=run), line, first, last)


def _history(session: Session, run: Run, first: int, last: int) -> Iterator[Rows]:
    """The live line's rows [first, last) in chunks."""
    for step_range in queries.live(session, run=run):
        end = last if step_range.last is None else min(last, step_range.last)
        cut = StepRange(step_range.segment, max(first, step_range.first), end)
        if cut.first < end:
            for steps in queries.steps_of(session, run=run, step_range=cut):
                yield stored_rows(steps)


def _record(session: Session, run: Run, effect: Effect, segment: int, now: float) -> None:
    match effect:
        case IncidentChanged(incident):
            _record_incident(session, run, incident, segment, now)
        case InterventionChanged(intervention):
            _record_intervention(session, run, intervention, now)
        case Outlier(step, signal, value, score):
            details = {"signal": signal, "value": encode_number(value), "score": encode_number(score)}
            key = f"outlier-{segment}-{step}-{signal}"
            commands.add_event(
                session, run=run, key=key, segment=segment, step=step, time=now, kind="outlier", details=details
            )


def _record_incident(session: Session, run: Run, incident: Incident, segment: int, now: float) -> None:
    commands.save_incident(
        session,
        run=run,
        number=incident.number,
        segment=segment,
        now=now,
        kind=incident.kind,
        state=incident.state,
        signal=incident.signal,
        onset_step=incident.onset_step,
        detected_step=incident.detected_step,
        peak_step=incident.peak_step,
        end_step=incident.end_step,
        score=_finite(incident.score),
        outcome=incident.outcome,
        details=plain_json(asdict(incident)),
    )


def _record_intervention(session: Session, run: Run, intervention: Intervention, now: float) -> None:
    row = commands.save_intervention(
        session,
        run=run,
        number=intervention.number,
        now=now,
        incident=intervention.incident,
        kind=intervention.kind,
        state=intervention.state,
        attempt=intervention.attempt,
        rewind_to=intervention.rewind_to,
        skip_from=intervention.skip_from,
        skip_to=intervention.skip_to,
        lr_scale=intervention.lr_scale,
        details=plain_json(asdict(intervention)),
    )
    if intervention.state is InterventionState.ORDERED:
        commands.issue_order(session, intervention=row, reason=" ".join(intervention.reasons), now=now)
    elif intervention.state in TAKEN_BACK and (order := queries.order_of(session, intervention=row)) is not None:
        commands.withdraw_order(session, order=order, detail=f"the intervention is {row.state}", now=now)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
