"""One report, one transaction: drop what is known, store the rest, advance the detection, answer with open orders."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Order, Run, RunStatus, Segment
from db.steps import writer
from db.steps.columns import MetricColumn
from db.steps.rollups import TooManyMetrics
from lossguard.json_values import plain_json
from lossguard.protocol import EXPECT, PROBE, is_pause
from lossguard.states import OrderState, RunState
from monitor.detection import DetectionEngine, Effect
from monitor.ingestion import detection_state, run_status
from monitor.ingestion.columns import decode, rows
from monitor.ingestion.run_cache import CachedRun, RunCache
from monitor.problems import Problem, bad_report, full, unknown
from monitor.schemas import AnswerIn, EventIn, FinishIn, ReportIn, RunIn, SegmentIn


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a report: new steps, steps that were known already, and the orders that are open."""

    accepted: int
    duplicates: int
    orders: Sequence[Order]


@dataclass(frozen=True, slots=True)
class Fresh:
    """The part of a report that the store did not have: columns of equal length."""

    steps: list[int]
    times: list[float]
    metrics: Mapping[str, MetricColumn]

    def between(self, first: int, last: int) -> "Fresh":
        """The rows at positions [first, last)."""
        if (first, last) == (0, len(self.steps)):
            return self
        metrics = {name: column.at(slice(first, last)) for name, column in self.metrics.items()}
        return Fresh(self.steps[first:last], self.times[first:last], metrics)


def register(session: Session, spec: RunIn, *, now: float, max_runs: int | None = None) -> tuple[Run, bool]:
    """The run, made when it is new: (run, whether it was). Raises Problem 429 when there are `max_runs` others."""
    run, is_new = commands.register_run(session, values=plain_json(spec.model_dump()) | {"policy": None}, now=now)
    if is_new and max_runs is not None and queries.num_runs(session) > max_runs:
        raise full(max_runs)
    commands.run_status_of(session, run=run, now=now).stepped_at = now
    return run, is_new


def open_segment(session: Session, run_id: str, spec: SegmentIn, *, now: float) -> Segment:
    """The segment with this key, made when it is new; the detection goes back to where it stood before the fork."""
    run = locked(session, run_id)
    segment, is_new = commands.open_segment(
        session,
        run=run,
        key=spec.key,
        fork_step=spec.fork_step,
        reason=spec.reason,
        order_id=spec.order,
        opened_at=spec.opened_at,
    )
    if is_new and segment.fork_step is not None:
        _fork(session, run, segment, now)
    return segment


def _fork(session: Session, run: Run, segment: Segment, now: float) -> None:
    if segment.number == 0 or segment is not queries.newest_segment(session, run=run):
        return
    watch = detection_state.bring_up(session, run)
    effects = detection_state.fork(session, run, watch, segment)
    detection_state.put_down(session, run, watch, effects, segment=segment, now=now)


def locked(session: Session, run_id: str) -> Run:
    """The run, locked; raises Problem 404 when there is none."""
    run = commands.lock_run(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return run


def take_report(
    session: Session,
    run_id: str,
    report: ReportIn,
    *,
    now: float,
    desks: RunCache,
    max_metrics: int | None = None,
    left: int | None = None,
) -> Receipt:
    """Store a report and act on it. Raises Problem when it is malformed: then nothing of it is stored.

    `left`: bytes that the trainer's spool holds behind this report, where it says so.
    """
    metrics = decode(report)
    desk = desks.take(session, run_id, now)
    segment = desk.segment(session, report.segment)
    if segment is None:
        raise bad_report(f"the run has no segment {report.segment}; open it first", "segment")
    known = set()
    if report.steps and segment.last_step is not None and report.steps[0] <= segment.last_step:
        known = writer.known_steps(session, run=desk.run, segment=segment.number, steps=report.steps)
    fresh = _without(known, Fresh(report.steps, report.times, metrics))
    if fresh.steps and segment.fork_step is None:
        commands.settle_fork(session, run=desk.run, segment=segment, first_step=fresh.steps[0])
        _fork(session, desk.run, segment, now)
        desk.refresh(session)
    # Steps that arrive behind their successors are stored, but the detectors and the pulse have gone past them.
    in_order = bool(fresh.steps) and (segment.last_step is None or fresh.steps[0] > segment.last_step)
    _insert(session, desk, segment, fresh, max_metrics)
    _watch(session, desk, segment, report, fresh, in_order, now)
    desk.pulse.undelivered_bytes = left
    if desk.follows(segment):
        _beat(desk.pulse, report, fresh, in_order, now)
    return Receipt(len(fresh.steps), len(known), desk.orders)


def _insert(session: Session, desk: CachedRun, segment: Segment, fresh: Fresh, max_metrics: int | None) -> None:
    try:
        desk.numbers = writer.insert_steps(
            session,
            run=desk.run,
            segment=segment.number,
            steps=fresh.steps,
            times=fresh.times,
            metrics=fresh.metrics,
            max_metrics=max_metrics,
            numbers=desk.numbers,
            soon=True,
        )
    except TooManyMetrics as error:
        raise bad_report(f"{error}; raise LOSSGUARD_MAX_METRICS for more", "metrics") from None


def _without(known: set[int], given: Fresh) -> Fresh:
    if not known:
        return given
    kept = [position for position, step in enumerate(given.steps) if step not in known]
    return Fresh(
        [given.steps[position] for position in kept],
        [given.times[position] for position in kept],
        {name: column.at(np.array(kept, dtype=np.int64)) for name, column in given.metrics.items()},
    )


def _watch(
    session: Session, desk: CachedRun, segment: Segment, report: ReportIn, fresh: Fresh, in_order: bool, now: float
) -> None:
    run, restorable = desk.run, report.restorable_steps
    told = [event for event in report.events if event.kind != EXPECT]
    new = [event for event in told if _record_event(session, run, segment, event)]
    events = [event for event in new if event.kind != PROBE]  # a look at the model changes nothing
    if restorable is not None:
        run.restorable_steps = restorable
    before = segment.last_step
    if fresh.steps:
        commands.grow_segment(segment, steps=fresh.steps)
    if not (fresh.steps or events or restorable is not None) or not desk.follows(segment):
        return
    effects = _feed(desk.watch, fresh if in_order else fresh.between(0, 0), events, restorable)
    # Rows alone need not be written down at once: they are stored, and can be fed to the detectors again.
    replayable = in_order and not events and restorable is None
    desk.conclude(session, segment, effects, rows=len(fresh.steps) if replayable else None, now=now)
    if in_order:
        detection_state.snapshot(session, run, desk.watch, segment=segment.number, before=before, step=fresh.steps[-1])


def _beat(beating: RunStatus, report: ReportIn, fresh: Fresh, in_order: bool, now: float) -> None:
    """Bring up how the run is doing."""
    if in_order:
        run_status.beat(beating, run_status.News(fresh.steps, fresh.times, fresh.metrics), now)
    if (pause := _pause(report, fresh)) is not None:
        beating.expected_by = now + pause


def _pause(report: ReportIn, fresh: Fresh) -> float | None:
    """The seconds of a pause that was announced and is not over. Raises Problem when they are no number of seconds."""
    pauses = [(index, event) for index, event in enumerate(report.events) if event.kind == EXPECT]
    for index, event in pauses:
        if not is_pause(event.details.get("next_report_in")):
            detail = "an expect event has next_report_in in its details: seconds, above 0 and at most 30 days"
            raise bad_report(detail, "events", index, "details", "next_report_in")
    if not pauses or (fresh.steps and fresh.steps[-1] >= watch_step(pauses[-1][1], fresh)):
        return None
    return float(pauses[-1][1].details["next_report_in"])


def _record_event(session: Session, run: Run, segment: Segment, event: EventIn) -> bool:
    return commands.add_event(
        session,
        run=run,
        key=event.key,
        segment=segment.number,
        step=event.step,
        time=event.time,
        kind=event.kind,
        details=plain_json(event.details),
    )


def _feed(watch: DetectionEngine, fresh: Fresh, events: list[EventIn], restorable: list[int] | None) -> list[Effect]:
    """Feed rows and declared events in the order of their steps."""
    effects: list[Effect] = []
    start = 0
    for event in sorted(events, key=lambda event: -1 if event.step is None else event.step):
        step = watch_step(event, fresh)
        end = bisect_left(fresh.steps, step)
        if end > start:
            effects += _feed_rows(watch, fresh.between(start, end), restorable)
            start = end
        watch.declare(step, event.kind)
    return effects + _feed_rows(watch, fresh.between(start, len(fresh.steps)), restorable)


def watch_step(event: EventIn, fresh: Fresh) -> int:
    """The step from which a declared event holds; without one, the first of the report that carries it."""
    if event.step is not None:
        return event.step
    return fresh.steps[0] if fresh.steps else 0


def _feed_rows(watch: DetectionEngine, fresh: Fresh, restorable: list[int] | None) -> list[Effect]:
    return watch.feed(rows(fresh.steps, fresh.times, fresh.metrics), restorable=restorable)


def take_answer(session: Session, order_id: int, answer: AnswerIn, *, now: float) -> Order:
    """What the trainer did about an order; told again, it changes nothing."""
    order = session.get(Order, order_id)
    if order is None:
        raise unknown("order", order_id)
    if answer.key is not None and answer.key != order.key:
        raise Problem(409, "this is another order", f"order {order_id} has another key", ["body", "key"])
    run = session.get_one(Run, order.run_pk)
    locked(session, run.id)
    session.refresh(order)
    state = OrderState(answer.state)
    told = answer.model_dump(exclude={"state", "key"})
    if not commands.answer_order(session, order=order, state=state, now=now, **told):
        return order
    watch = detection_state.bring_up(session, run)
    try:
        effects = _told(watch, order.intervention, answer)
    except ValueError as error:
        raise Problem(409, "the answer does not fit; nothing was changed", str(error), ["body", "state"]) from None
    newest = queries.newest_segment(session, run=run)
    detection_state.put_down(session, run, watch, effects, segment=newest, now=now)
    return order


def _told(watch: DetectionEngine, intervention: int, answer: AnswerIn) -> list[Effect]:
    if answer.state == "failed":
        return watch.order_failed(intervention, answer.detail)
    where = {"rewound_to": answer.rewound_to, "skip_from": answer.skip_from, "skip_to": answer.skip_to}
    return watch.order_applied(intervention, **where)


def finish(session: Session, run_id: str, spec: FinishIn, *, now: float) -> Run:
    run = locked(session, run_id)
    commands.finish_run(session, run=run, state=RunState(spec.state), at=spec.at, now=now)
    return run
