"""A run without its steps as one JSON object, and back: what an exported file tells beside the columns of its steps."""

import graphlib
import secrets
from collections.abc import Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Base, DetectionState, Event, Incident, Intervention, Order, Run, Segment, SkippedBatches
from lossguard.protocol import is_name, is_run_id
from lossguard.states import RunState

FORMAT = 1
"""Goes up when a reader of the former one would misread the object."""

PARTS: Mapping[str, type[Base]] = {
    "orders": Order,
    "segments": Segment,
    "incidents": Incident,
    "interventions": Intervention,
    "skip_ledger": SkippedBatches,
    "events": Event,
}
"""Part of the object -> its table; orders first, others refer to them."""


class BadRecord(ValueError):
    """The object is not what `describe` writes: one sentence that says where."""


class RunExists(ValueError):
    """There is a run with this id; nothing is ever overwritten."""


def describe(session: Session, *, run: Run) -> dict[str, Any]:
    """The run, its segments, orders, incidents, interventions, skip ledger, events, and where its detection stands."""
    watch = session.get(DetectionState, run.pk)
    described = {
        "format": FORMAT,
        "run": _row(run),
        "metrics": queries.metric_names(session, run=run),
        "watch": None if watch is None else _row(watch),
    }
    for name, model in PARTS.items():
        table = _table(model)
        found = sa.select(model).where(table.c.run_pk == run.pk).order_by(*table.primary_key.columns)
        described[name] = [_row(row) for row in session.scalars(found)]
    return described


def _table(model: type[Base]) -> sa.Table:
    return cast(sa.Table, model.__table__)


def _names(model: type[Base]) -> list[str]:
    """The columns that mean something outside of this store. Segments and the ledger name orders by their id."""
    inner = {"pk", "run_pk", "revision"} if model in (Run, Order) else {"id", "run_pk"}
    return [column.key for column in _table(model).columns if column.key not in inner]


def _row(row: Base) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _names(type(row))}


def restore(session: Session, described: Mapping[str, Any], *, run_id: str | None = None) -> Run:
    """Make the run of a description, under another id if wished; its segments are empty until steps are inserted.

    A run that was running is interrupted here: nobody reports to the copy, and a trainer that does takes it up again.
    Raises BadRecord, and RunExists when the store has a run of this id.
    """
    rows = check(described)
    run = add_run(session, {**described["run"], "id": run_id or described["run"]["id"]})
    ids: dict[int | None, int] = {}
    for name, model in PARTS.items():
        values = [_anew(model, row, ids) | {"run_pk": run.pk} for row in rows[name]]
        if model is Order and values:
            returned = session.scalars(sa.insert(Order).returning(Order.id, sort_by_parameter_order=True), values)
            ids = dict(zip([row["id"] for row in rows[name]], returned, strict=True))
        elif values:
            session.execute(sa.insert(model), values)
    if described.get("watch") is not None:
        commands.save_detection_state(session, run=run, **described["watch"])
    return run


def add_run(session: Session, values: Mapping[str, Any]) -> Run:
    """A run as it was elsewhere. Raises RunExists, and BadRecord for an id that no run can have."""
    run_id = values["id"]
    if not is_run_id(run_id):
        raise BadRecord(f"{run_id!r} cannot be the id of a run (letters, digits, . _ -); give it another with --as")
    exists = f"there is a run {run_id!r} already, and an import never overwrites; choose another id with --as"
    if queries.run_named(session, run_id=run_id) is not None:
        raise RunExists(exists)
    running = values["state"] == RunState.RUNNING
    changed = {"state": RunState.INTERRUPTED if running else values["state"], "revision": secrets.randbits(48)}
    run = Run(**{**values, **changed})  # the revision begins anywhere, as in commands.register_run
    try:
        with session.begin_nested():
            session.add(run)
    except sa.exc.IntegrityError:  # somebody made it in this moment
        raise RunExists(exists) from None
    return run


def _anew(model: type[Base], row: Mapping[str, Any], ids: Mapping[int | None, int]) -> dict[str, Any]:
    """The row for this store: orders get new ids, and a segment grows as its steps come."""
    values = dict.fromkeys(_names(model)) | dict(row)  # every row of one INSERT names the same columns
    if model is Order:
        del values["id"]
    if "order_id" in values:  # an order of another run is nothing here
        values["order_id"] = ids.get(values["order_id"])
    if model is Segment:
        values |= {"first_step": None, "last_step": None, "num_steps": 0}
    return values


def check(described: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows of every part. Raises BadRecord when one does not fit its table."""
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        found = described.get("format") if isinstance(described, dict) else None
        raise BadRecord(f"the description has format {found!r}; this version of Lossguard reads format {FORMAT}")
    _check_row(Run, described.get("run"), "run")
    rows: dict[str, list[dict[str, Any]]] = {name: _list(described, name) for name in PARTS}
    for name, model in PARTS.items():
        for at, row in enumerate(rows[name]):
            _check_row(model, row, f"{name}[{at}]")
    _check_tree(rows["segments"])
    if not all(is_name(name) for name in _list(described, "metrics")):
        raise BadRecord("metrics: names of metrics belong here")
    if described.get("watch") is not None:
        _check_row(DetectionState, described["watch"], "watch")
    return rows


def _list(described: Mapping[str, Any], name: str) -> list[Any]:
    found = described.get(name)
    if not isinstance(found, list):
        raise BadRecord(f"{name}: a list belongs here")
    return found


def _check_row(model: type[Base], row: Any, where: str) -> None:
    names = _names(model)
    if not isinstance(row, dict) or not set(row) <= set(names):
        raise BadRecord(f"{where}: an object with these fields belongs here: {', '.join(names)}")
    for name in names:  # one that an earlier release did not have yet may be missing
        column, value = _table(model).columns[name], row.get(name)
        if not (column.nullable if value is None else _fits(column, value)):
            raise BadRecord(f"{where}.{name}: {str(value)[:80]!r} does not fit a column of type {column.type}")


def _check_tree(segments: list[dict[str, Any]]) -> None:
    if [segment["number"] for segment in segments] != list(range(len(segments))):
        raise BadRecord("segments: they are numbered from 0 on, in order")
    settled = {segment["number"] for segment in segments if segment["fork_step"] is not None}
    parents = {segment["number"]: {segment["parent"]} - {None} for segment in segments}
    if not set().union(*parents.values()) <= settled:
        raise BadRecord("segments: a parent is no segment that has begun")
    try:
        graphlib.TopologicalSorter(parents).prepare()
    except graphlib.CycleError:
        raise BadRecord("segments: one is its own ancestor") from None


def _fits(column: sa.Column[Any], value: Any) -> bool:
    match column.type:
        case sa.String(length=length):
            return isinstance(value, str) and "\x00" not in value and len(value) <= (length or len(value))
        case sa.BigInteger():
            return type(value) is int and abs(value) < 2**63
        case sa.Integer():
            return type(value) is int and abs(value) < 2**31
        case sa.Float():
            return type(value) in (int, float)
    return isinstance(value, dict | list)
