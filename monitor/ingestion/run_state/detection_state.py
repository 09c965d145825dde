"""Between the pure detection and the store: load and save a run's detection engine, snapshot and fork it.

The caller has locked the run; everything here happens inside the caller's transaction.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, lineage, queries
from db.lineage import StepRange
from db.models import DetectionState, Order, Run, Segment, intact_state
from db.records import arms
from db.steps.reader import read_intact_blocks
from db.steps.step_block import StepBlock
from lossguard.vocabulary.limits import limits_in
from lossguard.vocabulary.metrics import detector_inputs
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, CAN_SCALE_LR, CANNOT_SKIP, remedies_in
from lossguard.vocabulary.states import OrderKind, RunState, SegmentReason
from monitor.detection import DetectionEngine, Effect, Rows
from monitor.detection.interventions import run_policy
from monitor.detection.interventions.decision import Records
from monitor.ingestion.columns import stored_rows
from monitor.ingestion.run_state import effects, recorded_steps, run_policies
from monitor.ingestion.run_state.effects import OF_INTERVENTION

log = logging.getLogger(__name__)

MAX_REBUILT_STEPS = 20_000
"""Stored steps of which the detection is rebuilt, and which it learns at a fork before all snapshots."""
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions that reading or using a damaged state raises."""
REBUILT = "detection_rebuilt"
"""Kind of the event that says so. It has no step: it is no change of the run."""
PARTS = {"detectors", "incidents", "interventions"}
"""Parts of a stored state; a state without one of them is damaged."""
MAX_BLOCK_STEPS = 5000
"""Stored steps that are read at a time when they are fed to the detection again."""
SNAPSHOT_EVERY = 250
"""Steps between two snapshots of the detectors; after a fork about so many stored steps at most are fed again."""


def load(session: Session, run: Run) -> DetectionEngine:
    """The run's detection engine as it was after the newest stored row."""
    return load_and_replay(session, run)[0]


def load_and_replay(session: Session, run: Run) -> tuple[DetectionEngine, int]:
    """Return the engine, and the number of rows that were stored after its saved state and fed to it again.

    These rows have no effects: had a report with them had any, the state would have been saved with it.
    """
    if run.state == RunState.RUNNING:  # one that has ended keeps the policy that it had
        follow_layers(session, run)
    engine, num_replayed = _load(session, run)
    give_records(session, run, engine)
    return engine, num_replayed


def give_records(session: Session, run: Run, engine: DetectionEngine) -> None:
    """Let the policy of the run know of all arms that were tried in its project."""
    engine.records = Records.of(arms.of_project(session, project=run.project))


def follow_layers(session: Session, run: Run) -> None:
    """Give the run the policy that its layers make now."""
    rule = run_policies.rule_of(session, run)
    if rule == run.policy:
        return
    if (segment := queries.newest_segment(session, run=run)) is not None:
        # The rows so far are judged by the old rule: save that state. A decision that the new one makes about them
        # while they are read again would reach nobody.
        engine, _ = _load(session, run)
        save(session, run, engine, [], segment=segment, now=run.last_report_at)
    run.policy = rule


def _load(session: Session, run: Run) -> tuple[DetectionEngine, int]:
    stored = queries.detection_state(session, run=run)
    try:
        return _restored(session, run, stored)
    except sa.exc.SQLAlchemyError:  # the database is away
        raise
    except UNREADABLE as error:
        return rebuild(session, run, f"the stored state cannot be used ({error or type(error).__name__})"), 0


def _new_engine(run: Run) -> DetectionEngine:
    return DetectionEngine(
        run_policy.settings_of(run.policy),
        run_policy.policy_of(run.policy),
        can_roll_back=CAN_ROLL_BACK in run.capabilities,
        can_skip=CANNOT_SKIP not in run.capabilities,
        remedies=remedies_in(run.capabilities),
        can_scale_lr=CAN_SCALE_LR in run.capabilities,
        limits=limits_in(run.capabilities),
    )


def _restored(session: Session, run: Run, stored: DetectionState | None) -> tuple[DetectionEngine, int]:
    """The engine of a stored state, and how many rows were fed to it. Raises one of UNREADABLE."""
    engine, numbers = _new_engine(run), queries.newest_numbers(session, run=run)
    if stored is None:
        if numbers != (0, 0):
            raise ValueError("it is missing")
        return engine, _replay(session, run, engine, StepRange(0, 0, None))  # a young run has no saved state yet
    state = intact_state(stored.state, stored.segment, stored.seen_step)
    if state is None:
        raise ValueError("it is not what was saved")
    if missing := PARTS.difference(state):
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    if new_signals := engine.load_state_dict(state):  # their detectors learn the last rows that the state has seen
        last = engine.last_step + 1
        first = max(last - SNAPSHOT_EVERY, 0)
        changes = declared(session, run, first, last)
        engine.detectors.relearn(new_signals, _history(session, run, first, last), changes)
    if any(known < newest for known, newest in zip(engine.numbers, numbers, strict=True)):
        raise ValueError(f"it knows {engine.numbers[0]} incidents and {engine.numbers[1]} interventions, not {numbers}")
    engine.set_policy(run_policy.policy_of(run.policy))
    if stored.segment is None:
        return engine, 0
    segment = session.get(Segment, (run.pk, stored.segment))
    if segment is not None and segment.last_step is not None and (stored.seen_step or 0) > segment.last_step:
        raise ValueError(f"it has seen step {stored.seen_step}, which is not stored")
    first = 0 if stored.seen_step is None else stored.seen_step + 1
    return engine, _replay(session, run, engine, StepRange(stored.segment, first, None))


def rebuild(session: Session, run: Run, why: str, *, end: int | None = None) -> DetectionEngine:
    """The detection of a run whose state is lost, from the rows of the live line below step `end` (default: all).

    It has the rows' own levels and the numbers of the stored incidents and interventions. An intervention that is under
    way goes on; other incidents and interventions that were open are closed. It is saved, and the run says so.
    """
    engine, segment, now = _new_engine(run), queries.newest_segment(session, run=run), run.last_report_at
    if segment is not None:
        if end is None:
            end = (segment.fork_step or 0) if segment.last_step is None else segment.last_step + 1
        engine.set_source(lineage.source_of(queries.source_events(session, run=run)))
        first = max(0, end - MAX_REBUILT_STEPS)
        changes = declared(session, run, first, end)
        engine.fork(
            end, SegmentReason.REWIND, _read(engine, _history(session, run, first, end)), None, declared=changes
        )
    engine.set_restorable(run.restorable_steps, run.restorable_tiers)
    num_incidents, num_interventions = queries.newest_numbers(session, run=run)
    interventions = queries.interventions(session, run=run)
    ordered = {order.intervention for order in queries.orders(session, run=run)}  # a proposal uses up no budget
    by_policy = (one for one in interventions if one.kind == OrderKind.ROLLBACK and one.details.get("mode"))
    last = interventions[-1] if interventions else None
    active = engine.take_up(
        num_incidents=num_incidents,
        num_interventions=num_interventions,
        rollbacks_used=sum(one.number in ordered for one in by_policy),
        last=None if last is None else {**last.details} | {name: getattr(last, name) for name in OF_INTERVENTION},
    )
    effects.close_others(session, run, intervention=active, reason=f"The detection was rebuilt: {why}.", now=now)
    number = 0 if segment is None else segment.number
    key, details = f"{REBUILT}-{run.revision}", {"why": why}
    commands.add_event(session, run=run, key=key, segment=number, step=None, time=now, kind=REBUILT, details=details)
    seen_step = None if segment is None or segment.last_step is None or end is None else end - 1
    commands.save_detection_state(session, run=run, state=engine.state_dict(), segment=number, seen_step=seen_step)
    text = f"the detection of run {run.id} was rebuilt from its stored rows: {why}"
    sa.event.listen(session, "after_commit", lambda _: log.warning(text), once=True)
    return engine


def _read(engine: DetectionEngine, history: Iterable[Rows]) -> Iterator[Rows]:
    """The rows, of which the engine also learns batches and durations."""
    for rows in history:
        engine.read(rows)
        yield rows


def _replay(session: Session, run: Run, engine: DetectionEngine, unseen: StepRange) -> int:
    """Feed the rows that the engine has not seen: how many there were."""
    num_rows = 0
    for block in _blocks(session, run, unseen):
        engine.feed(stored_rows(block))
        num_rows += len(block)
    return num_rows


def save(
    session: Session,
    run: Run,
    engine: DetectionEngine,
    concluded: Iterable[Effect],
    *,
    segment: Segment | None,
    now: float,
    approved_by: str | None = None,
) -> dict[str, Any]:
    """Write what the engine concluded, and its state, which is returned: it follows `segment` and has seen all of its
    rows."""
    number, seen_step = (0, None) if segment is None else (segment.number, segment.last_step)
    effects.write(session, run, concluded, segment=number, now=now, approved_by=approved_by)
    state = engine.state_dict()
    commands.save_detection_state(session, run=run, state=state, segment=number, seen_step=seen_step)
    return state


def update(
    session: Session,
    run: Run,
    change: Callable[[DetectionEngine], list[Effect]],
    *,
    now: float,
    approved_by: str | None = None,
) -> None:
    """Load the engine, apply `change`, save. What `change` raises passes through, before anything is written.

    `approved_by`: the person whose decision `change` is; an order that follows from it names them.
    """
    engine = load(session, run)
    concluded = change(engine)
    segment = queries.newest_segment(session, run=run)
    save(session, run, engine, concluded, segment=segment, now=now, approved_by=approved_by)


def fork(
    session: Session, run: Run, engine: DetectionEngine, segment: Segment, *, now: float, step: int | None = None
) -> list[Effect]:
    """A new segment begins: the detectors return to their state before its first step on the live line.

    `step`: the one after its last row, where it has rows already. Where no snapshot before it is kept, fresh detectors
    learn the last MAX_REBUILT_STEPS rows before it: they have the levels and the noise of these rows.
    """
    stored = queries.detection_state(session, run=run)
    if stored is not None and stored.segment is not None:
        effects.write(session, run, engine.conclude_replay(), segment=stored.segment, now=now)
    ended: list[Effect] = []
    followed = None if stored is None or stored.segment is None else session.get(Segment, (run.pk, stored.segment))
    if followed is not None and not followed.is_of(segment.writer):  # the segment is that of another process
        who = run.lease_process or "(unknown)"
        ended = engine.taken_over(f"Process {who} has taken over the run: this was about the steps of another one.")
    step = segment.fork_step if step is None else step
    assert step is not None
    known = queries.snapshot_before(session, run=run, step=step)
    first, state = (max(0, step - MAX_REBUILT_STEPS), None) if known is None else (known[0] + 1, known[1])
    earliest = max(first - SNAPSHOT_EVERY, 0)
    order = None if segment.order_id is None else session.get(Order, segment.order_id)
    is_new = step == segment.fork_step
    record = recorded_steps.before(session, run, segment, step) if is_new else recorded_steps.RecordedRows()
    return ended + engine.fork(
        step,
        segment.reason,
        _history(session, run, first, step),
        state,
        obeyed=order.intervention if order is not None and order.run_pk == run.pk else None,
        declared=declared(session, run, earliest, step),
        earlier=_history(session, run, earliest, first),
        recorded=record.rows,
        doubtful_from=record.doubtful_from,
    )


def declared(session: Session, run: Run, first: int, last: int) -> list[tuple[int, str]]:
    """(step, kind) of every declared event and resume among the live line's steps [first, last)."""
    segments = queries.segments_since(session, run=run, step=first)
    events = queries.events(session, run=run, steps=(first, last))
    return lineage.declared(segments, events, lineage.live_line(segments), first, last)


def _history(session: Session, run: Run, first: int, last: int) -> Iterator[Rows]:
    """The live line's rows [first, last) in chunks."""
    for step_range in queries.live_since(session, run=run, step=first):
        end = last if step_range.last is None else min(last, step_range.last)
        cut = StepRange(step_range.segment, max(first, step_range.first), end)
        if cut.first < end:
            yield from map(stored_rows, _blocks(session, run, cut))


def _blocks(session: Session, run: Run, step_range: StepRange) -> Iterator[StepBlock]:
    inputs = detector_inputs(queries.metric_names(session, run=run))
    return read_intact_blocks(
        session,
        run_pk=run.pk,
        step_range=step_range,
        metrics=inputs,
        max_steps=MAX_BLOCK_STEPS,
        skipped=lambda damaged: log.warning("the detection of run %s goes on without some rows: %s", run.id, damaged),
    )
