"""Functions that write to the store. Each takes the session; the caller owns the transaction."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from db import queries, run_settings
from db.models import BESIDE, Event, Incident, Intervention, Order, Run, RunStatus, Segment, SkippedBatches, state_text
from db.steps import backlog
from db.store import bulk, partitions
from db.store.engine import dialect_of
from lossguard.vocabulary.states import OrderState, RunState, SegmentReason


def lock_run(session: Session, *, run_id: str) -> Run | None:
    """The run as it is now, locked until the transaction ends; its revision rises. None if there is no such run."""
    session.flush()
    locked = lock_runs(session, run_ids=[run_id]).get(run_id)
    return None if locked is None else session.get(Run, locked[0], populate_existing=True)


def lock_runs(
    session: Session,
    *,
    run_ids: Sequence[str],
    last_report_at: float | None = None,
    reporting: Sequence[str] | None = None,
) -> dict[str, tuple[int, int]]:
    """Lock these runs until the transaction ends, and set their `last_report_at`: (pk, new revision) by id.

    `reporting`: those of them that have reported; None: all. Nothing else locks a run: revisions, and the caches that
    rely on them, depend on it.
    """
    row_lock = dialect_of(session.get_bind()).row_lock
    among, ids = f"WHERE id IN ({_marks(run_ids)})", tuple[Any, ...](run_ids)
    if row_lock:  # an UPDATE alone locks its rows in no particular order: two of them could wait for each other
        locked = f"SELECT pk AS locked FROM runs WHERE id = ANY(?) ORDER BY id{row_lock}"
        among, ids = f"FROM ({locked}) AS in_order WHERE pk = locked", (list(run_ids),)
    reported, values = "", ids
    if last_report_at is not None and reporting is None:
        reported, values = ", last_report_at = ?", (last_report_at, *ids)
    elif last_report_at is not None and reporting:
        case = f"CASE WHEN id IN ({_marks(reporting)}) THEN ? ELSE last_report_at END"
        reported, values = f", last_report_at = {case}", (*reporting, last_report_at, *ids)
    statement = f"UPDATE runs SET revision = revision + 1{reported} {among} RETURNING id, pk, revision"
    return {run_id: (pk, revision) for run_id, pk, revision in bulk.read(session, statement, values)}


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def register_run(session: Session, *, values: Mapping[str, Any], now: float) -> tuple[Run, bool]:
    """The run with this id, created if there is none: (run, whether it is new).

    A known run is running again: what the process says of itself replaces what an earlier one said, except what it does
    not say. The run keeps its name, which people may have changed.
    """
    run = lock_run(session, run_id=values["id"])
    if run is None:
        new = Run(**values, state=RunState.RUNNING, last_report_at=now, restorable_steps=[])
        try:
            with session.begin_nested():
                session.add(new)
            partitions.make_for(session, new.pk, is_new=True)
            run_settings.save(session, new)
            return new, True
        except sa.exc.IntegrityError:  # another collector has just created it
            return register_run(session, values=values, now=now)
    run.state = RunState.RUNNING
    run.finished_at = None
    run.archived_at = None
    run.last_report_at = now
    run.capabilities = list(values["capabilities"])
    searched = _searched(run)
    for name, value in values.items():
        if name not in OF_RUN and value not in (None, {}, []):
            setattr(run, name, value)
    if _searched(run) != searched:
        flag_modified(run, "config")  # SQLAlchemy, too, takes True for 1
        run_settings.save(session, run)
    return run, False


def _searched(run: Run) -> str:
    """Return what a search compares as text: in Python True, 1 and 1.0 are equal, in JSON they are not."""
    return json.dumps([run.config, run.devices])


OF_RUN = frozenset({"id", "project", "name", "policy", "started_at"})
"""Columns that a run keeps when another process registers it."""


def run_status_of(session: Session, *, run: Run, now: float) -> RunStatus:
    """The status of the run, created (without a step) if there is none."""
    status = session.get(RunStatus, run.pk)
    if status is None:
        status = RunStatus(
            run_pk=run.pk,
            last_step_at=now,
            nonfinite_steps=0,
            skipped_steps=0,
            latest_values={},
            peaks=[],
            recent_reports=[],
        )
        session.add(status)
    return status


def open_segment(
    session: Session,
    *,
    run: Run,
    key: str,
    fork_step: int | None,
    reason: SegmentReason,
    order_id: int | None,
    opened_at: float,
    writer: str | None = None,
    is_beside: bool = False,
) -> Segment:
    """The segment with this key, created if there is none.

    `writer`: digest of who opens it; `is_beside`: the live line does not lead to it.
    """
    known = queries.segment_with_key(session, run=run, key=key)
    if known is not None:
        return known
    segment = Segment(
        run_pk=run.pk,
        number=queries.num_segments(session, run=run),
        key=key,
        fork_step=fork_step,
        parent=None if fork_step is None else queries.parent_at(session, run=run, fork_step=fork_step),
        reason=reason,
        order_id=order_id,
        opened_at=opened_at,
        live_order=BESIDE if is_beside else queries.newest_live_order(session, run=run) + 1,
        writer=writer,
        num_steps=0,
        num_packed=0,
    )
    session.add(segment)
    session.flush()
    return segment


def lead(session: Session, *, run: Run, segment: Segment) -> None:
    """Let the live line lead to the segment: its process has taken over the run."""
    segment.live_order = queries.newest_live_order(session, run=run) + 1
    session.flush()


def set_fork_step(session: Session, *, run: Run, segment: Segment, first_step: int) -> None:
    """Set the first step of a segment that was opened without one, and with it its parent."""
    assert segment.fork_step is None
    segment.parent = queries.parent_at(session, run=run, fork_step=first_step)
    segment.fork_step = first_step
    session.flush()


def add_event(session: Session, *, run: Run, **event: Any) -> bool:
    """Record an event (`key` and the other columns of `Event`) unless its key is known: whether it is new."""
    return add_events(session, run=run, events=[event])[0]


def add_events(session: Session, *, run: Run, events: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Record those events whose keys are not known: for each of them, whether it is new."""
    of_run = sa.select(Event.key).where(Event.run_pk == run.pk)
    parts = bulk.key_parts(event["key"] for event in events)
    known = {key for keys in parts for key in session.scalars(of_run.where(Event.key.in_(keys)))}
    are_new = []
    for event in events:
        are_new.append(event["key"] not in known)
        if are_new[-1]:
            known.add(event["key"])
            session.add(Event(run_pk=run.pk, **event))
    session.flush()
    return are_new


def save_incident(session: Session, *, run: Run, number: int, segment: int, now: float, **values: Any) -> None:
    """Insert or update the run's incident of this number. An incident keeps the segment in which it was detected."""
    incident = queries.incident_numbered(session, run=run, number=number)
    if incident is None:
        incident = Incident(run_pk=run.pk, number=number, segment=segment, opened_at=now)
        session.add(incident)
    _assign(incident, values, now)
    session.flush()


def save_intervention(session: Session, *, run: Run, number: int, now: float, **values: Any) -> Intervention:
    """Insert or update the run's intervention of this number; of its details, those that are not given stay."""
    intervention = session.scalar(
        sa.select(Intervention).where(Intervention.run_pk == run.pk, Intervention.number == number)
    )
    if intervention is None:
        intervention = Intervention(run_pk=run.pk, number=number, created_at=now)
        session.add(intervention)
    elif "details" in values:
        values["details"] = intervention.details | values["details"]
    _assign(intervention, values, now)
    session.flush()
    return intervention


def _assign(row: Incident | Intervention, values: Mapping[str, Any], now: float) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.changed_at = now


def issue_order(
    session: Session,
    *,
    intervention: Intervention,
    reason: str,
    now: float,
    terms: Mapping[str, Any] | None = None,
    sign: Callable[[Order], str] | None = None,
) -> Order:
    """The order that carries an intervention to the trainer, created if there is none.

    `terms`: further columns of a new order; `sign` returns its signature.
    """
    order = queries.order_of(session, intervention=intervention)
    if order is None:
        order = Order(
            run_pk=intervention.run_pk,
            key=secrets.token_hex(8),
            intervention=intervention.number,
            kind=intervention.kind,
            state=OrderState.OPEN,
            incident=intervention.incident,
            rewind_to=intervention.rewind_to,
            skip_from=intervention.skip_from,
            skip_to=intervention.skip_to,
            lr_scale=intervention.lr_scale,
            remedies=intervention.remedies,
            reason=reason,
            created_at=now,
            **(terms or {}),
        )
        session.add(order)
        session.flush()
        if sign is not None:
            order.signature = sign(order)
            session.flush()
    return order


def answer_order(
    session: Session,
    *,
    order: Order,
    state: OrderState,
    rewound_to: int | None,
    skip_from: int | None,
    skip_to: int | None,
    detail: str,
    now: float,
    refusal: str | None = None,
) -> bool:
    """Record the trainer's answer and the batches that it skips: whether the answer is new.

    An order keeps its first answer. One that was withdrawn while the trainer carried it out still receives its answer.
    """
    if order.state in (OrderState.APPLIED, OrderState.FAILED):
        return False
    order.state = state
    order.rewound_to = rewound_to
    order.detail = detail
    order.refusal = refusal if state is OrderState.FAILED else None
    order.answered_at = now
    if state is OrderState.APPLIED and skip_from is not None and skip_to is not None and skip_from < skip_to:
        session.add(
            SkippedBatches(
                run_pk=order.run_pk,
                skip_from=skip_from,
                skip_to=skip_to,
                order_id=order.id,
                reason=order.reason,
                created_at=now,
            )
        )
    session.flush()
    return True


def withdraw_order(session: Session, *, order: Order, detail: str, now: float) -> None:
    """Withdraw an order that the trainer has not answered; an answered one does not change."""
    if order.state == OrderState.OPEN:
        order.state, order.detail, order.answered_at = OrderState.WITHDRAWN, detail, now
        session.flush()


def save_detection_state(
    session: Session, *, run: Run, state: dict[str, Any], segment: int | None = None, seen_step: int | None = None
) -> None:
    """Save the state of the run's detection. It is large: the old one is replaced without being read.

    The state has seen the steps of `segment` up to `seen_step`; without a segment it has seen all stored steps.
    """
    bulk.run(
        session,
        "INSERT INTO detection_states (run_pk, state, segment, seen_step) VALUES (?, ?, ?, ?) ON CONFLICT (run_pk)"
        " DO UPDATE SET state = excluded.state, segment = excluded.segment, seen_step = excluded.seen_step",
        (run.pk, state_text(state, segment, seen_step), segment, seen_step),
    )


MAX_SNAPSHOTS = 64
"""Snapshots of the detectors that a run keeps."""


def save_snapshot(session: Session, *, run: Run, segment: int, step: int, state: dict[str, Any]) -> None:
    """Save a state of the detectors for later forks, and delete the oldest ones beyond MAX_SNAPSHOTS."""
    bulk.run(
        session,
        "INSERT INTO detector_snapshots (run_pk, segment, step, state) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (run.pk, segment, step, state_text(state, segment, step)),
    )
    bulk.run(
        session,
        "DELETE FROM detector_snapshots WHERE run_pk = ? AND (segment, step) < (SELECT segment, step"
        " FROM detector_snapshots WHERE run_pk = ? ORDER BY segment DESC, step DESC LIMIT 1 OFFSET ?)",
        (run.pk, run.pk, MAX_SNAPSHOTS - 1),
    )


def finish_run(session: Session, *, run: Run, state: RunState, at: float, now: float) -> None:
    run.state = state
    run.finished_at = at
    run.last_report_at = now
    session.flush()
    backlog.pack_last_rows(session, run=run)


def delete_run(session: Session, *, run: Run) -> None:
    """Delete a run and everything that belongs to it."""
    delete_runs(session, run_pks=[run.pk])


def delete_runs(session: Session, *, run_pks: Sequence[int]) -> None:
    """Delete runs, which the transaction has locked, and everything that belongs to them (the foreign keys cascade)."""
    session.execute(sa.delete(Run).where(Run.pk.in_(run_pks)))
    partitions.delete_rows(session, run_pks)
