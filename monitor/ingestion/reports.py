"""One report, from the request to the answer. Steps that are stored already are dropped, so it may be sent again.

Parse, lock, drop what is known, store, detect and decide, write the effects, update the status, answer: each step
happens once, in this order, in one transaction.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Order, Segment
from db.records import hardware
from db.steps import writer
from db.steps.codec import DamagedBlock
from db.steps.rollups import TooManyMetrics
from db.store import bulk
from lossguard.vocabulary.protocol import (
    ARMS,
    CHECKPOINT_UNCERTIFIED,
    EXPECT,
    PROBE,
    REMEDY,
    SKIPPED_SAMPLE_RETURNED,
    is_pause,
    plain_json,
)
from lossguard.vocabulary.states import SegmentReason
from lossguard.vocabulary.wire import ArmsTried, Notice
from monitor.detection import DetectionEngine, Effect
from monitor.ingestion import answers, lease
from monitor.ingestion.columns import StepColumns, decode, detector_row, detector_rows
from monitor.ingestion.lease import Claim
from monitor.ingestion.orders import take_preflight
from monitor.ingestion.run_cache import MAX_UNSAVED_ROWS, CachedRun
from monitor.ingestion.run_state import detection_state, run_status
from monitor.problems import among_damaged, bad_report
from monitor.schemas import EventIn, ReportIn

NO_CHANGE = (PROBE, REMEDY, CHECKPOINT_UNCERTIFIED)
"""Kinds of events that announce no change to the detection."""
BEHIND_BYTES = 65_536
"""Size of a trainer's undelivered spool, some hundred rows, from which on it is far ahead of the detection."""


@dataclass(frozen=True, slots=True)
class ReportResult:
    """The numbers of steps that were stored now and before, and the orders that are open now."""

    num_accepted: int
    num_duplicates: int
    open_orders: Sequence[Order]
    """Open orders; none for a process that does not hold the run's lease, or while the live line is another's: they
    were decided about the steps of that one."""
    lease_seconds: float | None = None
    """Seconds for which the process holds the lease; 0 when another one does, None when it does not say who it is."""
    lease_process: str | None = None
    """The process that holds the lease, or held it last."""
    question: dict[str, Any] | None = None
    """The question to the trainer before a person approves a rollback; None: no question now."""
    notices: Sequence[Notice] = ()
    """Sentences that the trainer logs, each once."""
    rows_due_at: float | None = None
    """Time at which the waiting rows are due, by the collector's clock; None where none wait."""


def take_report(
    session: Session,
    report: ReportIn,
    lock: Callable[[], CachedRun],
    *,
    claim: Claim,
    max_metrics: int | None = None,
    undelivered_bytes: int | None = None,
) -> ReportResult:
    """Store a report and act on it. Raises Problem when it is malformed: then nothing of it is stored.

    `lock` locks its run. `undelivered_bytes`: size of the trainer's spool behind this report, if the trainer sent it.
    """
    # Parse.
    columns, pause = decode(report), _announced_pause(report)

    # Lock, and read what the next steps need.
    cached = lock()
    if report.events or report.hardware or report.preflight or report.restorable_steps is not None:
        cached.attach(session)
    is_holder = lease.take(cached.run, claim)
    segment = _segment(session, cached, report, columns, claim, is_holder=is_holder)

    # Drop what is known.
    known = _known_steps(session, cached, segment, columns)
    new = columns.without(known)
    taken = _Taken(session, cached, segment, report, pause, new, segment.last_step, claim.now)

    # Store, detect, decide, write the effects, update the status.
    changes = taken.store(max_metrics)
    has_restorable = is_holder and _keep_restorable(cached, report)
    cached.engine.is_behind = (undelivered_bytes or 0) > BEHIND_BYTES
    status = taken.detect_and_decide(changes, has_restorable=has_restorable)
    if is_holder:
        if status or cached.status.undelivered_bytes != undelivered_bytes:
            status["undelivered_bytes"] = undelivered_bytes
        if report.preflight is not None:
            cached.proposal = take_preflight(session, cached.run, cached.proposal, report.preflight, claim.now)
    if status:
        bulk.update_soon(session, cached.status, status)
    cached.attach_changed(session)

    # Answer.
    left = None if claim.writer is None else lease.seconds_left(cached.run, claim.now) if is_holder else 0.0
    is_judged = is_holder and (cached.newest_segment is None or cached.newest_segment.is_of(claim.digest))
    orders = cached.open_orders if is_judged else ()
    question = cached.proposal.to_wire(claim.now) if is_judged and cached.proposal is not None else None
    notices = cached.engine.incidents.notices()
    return ReportResult(len(new.steps), len(known), orders, left, cached.run.lease_process, question, notices)


def _announced_pause(report: ReportIn) -> EventIn | None:
    """The last pause that the report announces. Raises Problem 422 when one does not say how long it is."""
    last = None
    for index, event in enumerate(report.events):
        if event.kind == EXPECT:
            last = event
            if not is_pause(event.details.get("next_report_in")):
                detail = "the details of an expect event need next_report_in: seconds, above 0 and at most 30 days"
                raise bad_report(detail, "events", index, "details", "next_report_in")
    return last


def _segment(
    session: Session, cached: CachedRun, report: ReportIn, columns: StepColumns, claim: Claim, *, is_holder: bool
) -> Segment:
    """The segment of the report. What a process reports for a segment of another one is given one of its own, and a
    holder that goes on in its own segment leads the live line to it."""
    segment = cached.segment(session, report.segment)
    if segment is None:
        raise bad_report(f"the run has no segment {report.segment}; open it first", "segment")
    is_own = segment.is_of(claim.digest) and (is_holder or not lease.is_replaced(cached.run, claim))
    if not is_own and (columns.steps or report.events) and not _is_delivered_again(segment, columns, claim):
        # Those without the lease share one beside the line; the one with the lease goes on with the run from its first
        # step.
        cached.attach(session)
        segment = commands.open_segment(
            session,
            run=cached.run,
            key=f"{segment.number}~{(claim.digest or 'anybody') if is_holder else ''}",
            fork_step=None,
            reason=SegmentReason.RESUME,
            order_id=None,
            opened_at=claim.now,
            is_beside=not is_holder,
            writer=claim.digest if is_holder else None,
        )
    if is_holder and _takes_over(session, cached, segment, claim):
        _lead(session, cached, segment, claim.now)
    return segment


def _is_delivered_again(segment: Segment, columns: StepColumns, claim: Claim) -> bool:
    """True if a process delivers from another folder what the segment has, as a second import of the same run does."""
    if claim.writer is None or not claim.writer.only_delivers or segment.last_step is None:
        return False
    return not columns.steps or columns.steps[-1] <= segment.last_step


def _takes_over(session: Session, cached: CachedRun, segment: Segment, claim: Claim) -> bool:
    """True if the process that has the lease goes on in a segment of its own while the live line is another's."""
    newest = cached.newest_segment
    if segment.writer != claim.digest or (newest is not None and newest.number == segment.number):
        return False
    is_of_another = newest is not None and newest.writer is not None and newest.writer != claim.digest
    return (segment.is_beside or is_of_another) and queries.is_newest_of_writer(session, segment=segment)


def _lead(session: Session, cached: CachedRun, segment: Segment, now: float) -> None:
    """Let the live line lead to the segment. The detection learns its stored rows, which open no incident."""
    cached.attach(session)
    commands.lead(session, run=cached.run, segment=segment)
    cached.newest_segment = queries.newest_segment(session, run=cached.run)
    if segment.fork_step is not None:
        end = segment.fork_step if segment.last_step is None else segment.last_step + 1
        effects = detection_state.fork(session, cached.run, cached.engine, segment, now=now, step=end)
        cached.save(session, segment, effects, now=now)


def _known_steps(session: Session, cached: CachedRun, segment: Segment, columns: StepColumns) -> set[int]:
    """The steps that the segment has already. Nearly always none: then the store is not asked."""
    if not columns.steps or segment.last_step is None or columns.steps[0] > segment.last_step:
        return set()
    try:
        return writer.known_steps(session, run=cached.run, segment=segment.number, steps=columns.steps)
    except DamagedBlock as error:
        raise among_damaged(_late(columns, segment.last_step), error) from None


def _late(columns: StepColumns, last_step: int) -> list[int]:
    """The steps that are no newer than the last one of the segment."""
    return [step for step in columns.steps if step <= last_step]


def _keep_restorable(cached: CachedRun, report: ReportIn) -> bool:
    """Keep which steps the trainer can restore, as its report says: whether it says so."""
    steps = report.restorable_steps
    if steps is None:
        return False
    tiers = None if report.restorable_tiers is None else [tier.model_dump() for tier in report.restorable_tiers]
    cached.run.restorable_steps, cached.run.restorable_tiers = steps, tiers
    cached.engine.set_restorable(steps, tiers)
    return True


@dataclass(frozen=True, slots=True)
class _Taken:
    """A report on its way: its run is locked, and what is known of it has been dropped."""

    session: Session
    cached: CachedRun
    segment: Segment
    report: ReportIn
    pause: EventIn | None
    """The last pause that it announces."""
    new: StepColumns
    """Steps that are not stored yet."""
    previous_step: int | None
    """The last step of the segment before them."""
    now: float

    @property
    def onward(self) -> StepColumns:
        """The new steps after those that are stored. The detection and the status are past the others."""
        first = 0 if self.previous_step is None else bisect_right(self.new.steps, self.previous_step)
        return self.new.between(first, len(self.new.steps))

    def store(self, max_metrics: int | None) -> list[EventIn]:
        """Store steps, events and samples: the new events that the detection needs.

        A segment that was opened without a first step gets its place in the tree now.
        """
        if self.new.steps:
            if self.segment.fork_step is None:
                self._settle_fork()
            self._store_steps(max_metrics)
        changes = self._store_events()
        if samples := [sample.model_dump() for sample in self.report.hardware]:
            hardware.add_samples(self.session, run=self.cached.run, samples=samples)
        return changes

    def _settle_fork(self) -> None:
        """The first step of a segment that was opened without one tells where it forks."""
        session, cached, segment = self.session, self.cached, self.segment
        cached.attach(session)
        commands.set_fork_step(session, run=cached.run, segment=segment, first_step=self.new.steps[0])
        cached.newest_segment = queries.newest_segment(session, run=cached.run)
        if segment.number > 0 and cached.follows(segment):
            effects = detection_state.fork(session, cached.run, cached.engine, segment, now=self.now)
            cached.save(session, segment, effects, now=self.now)

    def _store_steps(self, max_metrics: int | None) -> None:
        session, cached, segment, new = self.session, self.cached, self.segment, self.new
        try:
            cached.kept = writer.insert_steps(
                session,
                segment=segment,
                steps=new.steps,
                times=new.times,
                metrics=new.metrics,
                max_metrics=max_metrics,
                kept=cached.kept,
                soon=True,
            )
        except TooManyMetrics as error:
            raise bad_report(f"{error}; to allow more, raise LOSSGUARD_MAX_METRICS", "metrics") from None
        except DamagedBlock as error:
            if segment.last_step is None or not (late := _late(new, segment.last_step)):
                raise  # the run cannot go on until the store is whole: the SDK keeps its steps and tries again
            raise among_damaged(late, error) from None

    def _store_events(self) -> list[EventIn]:
        """Store the events that are new, and return those that the detection needs: others announce no change."""
        session, cached, given = self.session, self.cached, self.report.events
        if tried := [ArmsTried.from_details(event.details) for event in given if event.kind == ARMS]:
            answers.take_arms(session, cached.run, cached.engine, tried)
        events = [event for event in given if event.kind not in (ARMS, EXPECT)]
        if not events:
            return []
        values = [
            event.model_dump(exclude={"details"})
            | {"segment": self.segment.number, "details": plain_json(event.details)}
            for event in events
        ]
        are_new = commands.add_events(session, run=cached.run, events=values)
        return [event for event, is_new in zip(events, are_new, strict=True) if is_new and event.kind not in NO_CHANGE]

    def detect_and_decide(self, changes: list[EventIn], *, has_restorable: bool) -> dict[str, Any]:
        """Feed what is new to the engine, and write what it concludes: what changes in the status of the run.

        Late reports of an abandoned segment are stored only.
        """
        session, cached, new, onward, now = self.session, self.cached, self.new, self.onward, self.now
        if not cached.follows(self.segment):
            if has_restorable and cached.newest_segment is not None:  # while another process leads the live line
                cached.save(session, cached.newest_segment, [], now=now)
            return {}
        announced = [event for event in self.report.events if event.kind == EXPECT]
        pauses = [_effective_step(event, new) for event in announced if not self._is_over(event, self.previous_step)]
        cached.engine.throughput.expect_pauses(pauses)
        is_late = len(onward.steps) < len(new.steps)
        has_state_changes = bool(changes or pauses) or has_restorable or is_late
        saved: dict[str, Any] | None = None
        if new.steps or has_state_changes:
            changes = [self._with_intervention(event) for event in changes]
            effects = self._detected(onward, changes)
            # Rows in order can be fed again from the store, unless they wait for newer ones: read again, they would be
            # decided about, with no report to answer. All else is in the engine's state alone.
            is_postponed = cached.engine.is_behind and cached.engine.incidents.open is not None
            if effects or has_state_changes or is_postponed:
                cached.attach(session)
                saved = cached.save(session, self.segment, effects, now=now)
            else:
                saved = cached.save_later(session, self.segment, len(new.steps), now=now)
        return self._changed_status(onward, saved)

    def _with_intervention(self, event: EventIn) -> EventIn:
        """The event; one that names an order, as the trainer knows it, then also names its intervention."""
        order = event.details.get("order") if event.kind == SKIPPED_SAMPLE_RETURNED else None
        row = self.session.get(Order, order) if type(order) is int and 0 < order < 2**31 else None
        if row is None or row.run_pk != self.cached.run.pk:
            return event
        return event.model_copy(update={"details": event.details | {"intervention": row.intervention}})

    def _detected(self, columns: StepColumns, changes: Sequence[EventIn]) -> list[Effect]:
        """Return what the detection concludes. It is rebuilt once if its state turns out to be damaged."""
        cached = self.cached
        try:
            return _detect(cached.engine, columns, changes)
        except detection_state.UNREADABLE as error:
            cached.attach(self.session)
            why = f"it cannot go on from its state ({type(error).__name__}: {error})"
            end = columns.steps[0] if columns.steps else None
            cached.engine = detection_state.rebuild(self.session, cached.run, why, end=end)
            cached.num_unsaved_rows = MAX_UNSAVED_ROWS
            return _detect(cached.engine, columns, changes)

    def _changed_status(self, onward: StepColumns, saved: dict[str, Any] | None) -> dict[str, Any]:
        """`saved`: the state of the engine, if this report saved it."""
        cached, pause = self.cached, self.pause
        status: dict[str, Any] = {}
        if onward.steps:
            cached.snapshot(self.session, self.segment, self.previous_step, onward.steps[-1], saved)
            try:
                status = self._with_steps(onward)
            except detection_state.UNREADABLE:  # what is stored is no status
                run_status.forget(cached.status)
                status = self._with_steps(onward)
        if pause is not None and not self._is_over(pause, self.segment.last_step):
            status["expected_by"] = self.now + float(pause.details["next_report_in"])
        return status

    def _is_over(self, pause: EventIn, last_step: int | None) -> bool:
        """True if the segment, which has steps up to `last_step`, has the step before which the pause was announced.

        Its step may have come with the same report, or before, where the report is delivered a second time.
        """
        steps = self.report.steps if pause.step is None else [pause.step]
        return bool(steps) and last_step is not None and steps[0] <= last_step

    def _with_steps(self, onward: StepColumns) -> dict[str, Any]:
        cached = self.cached
        status = run_status.with_steps(cached.status, onward, self.now)
        # While an order is carried out, the next steps may take any time.
        limit = None if cached.open_orders else cached.engine.throughput.gaps.limit(status["report_gaps"])
        return status | {"stall_after": limit}


def _detect(engine: DetectionEngine, columns: StepColumns, events: Sequence[EventIn]) -> list[Effect]:
    """Feed rows and declared events in the order of their steps."""
    effects: list[Effect] = []
    start = 0
    for event in sorted(events, key=lambda event: -1 if event.step is None else event.step):
        step = _effective_step(event, columns)
        end = bisect_left(columns.steps, step)
        if end > start:
            effects += _feed(engine, columns.between(start, end))
            start = end
        effects += engine.declare(step, event.kind, event.details)
    return effects + _feed(engine, columns.between(start, len(columns.steps)))


def _feed(engine: DetectionEngine, columns: StepColumns) -> list[Effect]:
    if len(columns.steps) == 1:
        row = detector_row(columns.steps[0], columns.times[0], columns.metrics)
        if row is not None:
            return engine.feed_row(row)
    return engine.feed(detector_rows(columns.steps, columns.times, columns.metrics))


def _effective_step(event: EventIn, columns: StepColumns) -> int:
    """The step from which an event applies: its own, else the first of the report that carries it."""
    if event.step is not None:
        return event.step
    return columns.steps[0] if columns.steps else 0
