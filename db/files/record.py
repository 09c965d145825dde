"""Describe a run as one JSON object, and restore it: all that an exported file holds besides the steps."""

import graphlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries, run_settings
from db.files.rules import BadRecord, check_row
from db.models import (
    CRC,
    INNER_COLUMNS,
    MAX_AUTHOR,
    Base,
    DetectionState,
    Event,
    Incident,
    Intervention,
    JsonList,
    JsonObject,
    Order,
    Run,
    Segment,
    SkippedBatches,
)
from db.records.arms import TriedArm
from db.records.step_notes import StepNote
from db.store import partitions
from lossguard.vocabulary.protocol import is_name, is_run_id, plain_json
from lossguard.vocabulary.states import INTERVENTIONS_UNDER_WAY, InterventionState, OrderState, RunState

FORMAT = 1
"""Version of the form. It rises when a reader of the previous one would misread the object."""

PARTS: Mapping[str, type[Base]] = {
    "orders": Order,
    "segments": Segment,
    "incidents": Incident,
    "interventions": Intervention,
    "skip_ledger": SkippedBatches,
    "events": Event,
    "step_notes": StepNote,
    "arms": TriedArm,
}
"""Part of the object -> its table; orders first, because others refer to them."""
LATER_PARTS = frozenset({"arms"})
"""Tables that files of the last pre-release do not have."""


class RunExists(ValueError):
    """There is a run with this id, and an import never overwrites one."""


def describe(session: Session, *, run: Run) -> dict[str, Any]:
    """The run, its segments, orders, incidents, interventions, skip ledger, events, notes, arms, and the state
    of its detection."""
    detection = session.get(DetectionState, run.pk)
    described: dict[str, Any] = {
        "format": FORMAT,
        "run": _row(run),
        "metrics": queries.metric_names(session, run=run),
        "watch": None if detection is None else _row(detection),
    }
    for name, model in PARTS.items():
        table = _table(model)
        found = sa.select(model).where(table.c.run_pk == run.pk).order_by(*table.primary_key.columns)
        described[name] = [_row(row) for row in session.scalars(found)]
    return described


def _table(model: type[Base]) -> sa.Table:
    return cast(sa.Table, model.__table__)


def _names(model: type[Base]) -> list[str]:
    """The columns that have a meaning outside this store. Segments and the ledger refer to orders by id."""
    inner = {"pk", "run_pk", "revision"} if model in (Run, Order) else {"id", "run_pk", *INNER_COLUMNS}
    names = [column.key for column in _table(model).columns if column.key not in inner]
    return [name for name in names if not (model is Run and name.startswith("lease_"))]


def _row(row: Base) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _names(type(row))}


def restore(session: Session, described: Mapping[str, Any], *, run_id: str | None = None) -> Run:
    """Create the run of a description from `read`, under `run_id` if given; its segments are empty until steps are
    inserted.

    A run that was running is interrupted in the copy, since nothing reports to it; a trainer that does resumes it. What
    was under way ends with the import: a file may say anything, and no trainer acts by it.
    Raises BadRecord for an id that no run can have, and RunExists when the store has a run with this id.
    """
    run = add_run(session, _storable(Run, described["run"]) | {"id": run_id or described["run"]["id"]})
    ids: dict[int | None, int] = {}
    for name, model in PARTS.items():
        values = [_new_row(model, row, ids) | {"run_pk": run.pk} for row in _part(described, name)]
        if model is Order and values:
            returned = session.scalars(sa.insert(Order).returning(Order.id, sort_by_parameter_order=True), values)
            ids = dict(zip([row["id"] for row in described[name]], returned, strict=True))
        elif values:
            session.execute(sa.insert(model), values)
    if described.get("watch") is not None and not _is_under_way(described["watch"]["state"]):
        watch = _storable(DetectionState, described["watch"])
        watch["state"].pop(CRC, None)
        commands.save_detection_state(session, run=run, **watch)
    return run


ENDED = "it was open when the run was imported, and an imported order is carried out by nobody"


def _is_under_way(state: Mapping[str, Any]) -> bool:
    """True if the detection follows an incident or an intervention: then it is rebuilt from the steps instead."""
    parts = [state.get(name) for name in ("incidents", "interventions", "care")]
    followed = [part.get(name) for part in parts if isinstance(part, dict) for name in FOLLOWED]
    return any(each is not None for each in [*followed, state.get("episode"), state.get("treated")])


FOLLOWED = ("open", "under_verification", "mismatch", "active")


AS_IMPORTED = " (as an imported file says)"
"""Appended to the names of people in a file: nobody here knows whether they did it."""


def _storable(model: type[Base], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with JSON that every database takes: NaN and infinities as in the protocol."""
    columns = _table(model).columns
    return {
        name: plain_json(value) if isinstance(columns[name].type, JsonObject | JsonList) else value
        for name, value in row.items()
    }


def add_run(session: Session, values: Mapping[str, Any]) -> Run:
    """Add a run from another store. Raises RunExists, and BadRecord for an id that no run can have."""
    run_id = values["id"]
    if not is_run_id(run_id):
        raise BadRecord(f"{run_id!r} cannot be the id of a run (letters, digits, . _ -); choose another with --as")
    exists = f"the run {run_id!r} exists, and an import never overwrites; choose another id with --as"
    if queries.run_named(session, run_id=run_id) is not None:
        raise RunExists(exists)
    running = values["state"] == RunState.RUNNING
    changed = {"state": RunState.INTERRUPTED if running else values["state"], "revision": secrets.randbits(48)}
    run = Run(**{**values, **changed})  # the revision starts at a random number, see Run.revision
    try:
        with session.begin_nested():
            session.add(run)
    except sa.exc.IntegrityError:  # another process has just created it
        raise RunExists(exists) from None
    partitions.make_for(session, run.pk)
    run_settings.save(session, run)
    return run


def _new_row(model: type[Base], row: Mapping[str, Any], ids: Mapping[int | None, int]) -> dict[str, Any]:
    """The row for this store: an order gets a new id, and a segment is empty until its steps are inserted.

    Nobody acts on an open order or intervention any more, and its approval is nobody's here.
    """
    values = dict.fromkeys(_names(model)) | _storable(model, row)  # all rows of one INSERT need the same columns
    if "order_id" in values:  # an order that is not of this run is dropped
        values["order_id"] = ids.get(values["order_id"])
    for name in ("approved_by", "author"):
        if (who := values.get(name)) is not None:
            values[name] = who.removesuffix(AS_IMPORTED)[: MAX_AUTHOR - len(AS_IMPORTED)] + AS_IMPORTED
    if model is Segment:
        values |= {"first_step": None, "last_step": None, "num_steps": 0, "num_packed": 0}
    if model is Intervention and values["state"] in INTERVENTIONS_UNDER_WAY:
        values["state"] = InterventionState.WITHDRAWN
    if model is Order:
        del values["id"]
        if values["state"] == OrderState.OPEN:
            key = secrets.token_hex(8)  # whoever wrote the file knows the other one
            values |= {"state": OrderState.FAILED, "detail": ENDED, "key": key, "approved_by": None, "signature": None}
    return values


def read(text: bytes) -> dict[str, Any]:
    """The description that a file holds. Raises BadRecord when it is none."""
    try:
        described = _parsed(text)
        _check(described)
    except RecursionError:
        raise BadRecord("the description of the run is nested too deeply") from None
    return described


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        described = json.loads(text.decode())
    except ValueError as error:  # not JSON, not UTF-8, or a number of more than 4,300 digits
        raise BadRecord(f"the description of the run cannot be read: {error}") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        found = described.get("format") if isinstance(described, dict) else None
        raise BadRecord(
            f"the description has format {str(found)[:80]!r}; this version of Lossguard reads format {FORMAT}"
        )
    return described


def _check(described: Mapping[str, Any]) -> None:
    """Raises BadRecord unless every row fits its table."""
    check_row(Run, described.get("run"), "run", _names(Run))
    for name, model in PARTS.items():
        names = _names(model)
        for at, row in enumerate(_part(described, name)):
            check_row(model, row, f"{name}[{at}]", names)
    _check_tree(described["segments"])
    metrics = _list(described, "metrics")
    if not all(map(is_name, metrics)) or len(set(metrics)) < len(metrics):
        raise BadRecord("metrics: this must be a list of metric names, each of them once")
    if described.get("watch") is not None:
        check_row(DetectionState, described["watch"], "watch", _names(DetectionState))


def _part(described: Mapping[str, Any], name: str) -> list[Any]:
    return [] if name in LATER_PARTS and name not in described else _list(described, name)


def _list(described: Mapping[str, Any], name: str) -> list[Any]:
    found = described.get(name)
    if not isinstance(found, list):
        raise BadRecord(f"{name}: this must be a list")
    return found


def _check_tree(segments: list[dict[str, Any]]) -> None:
    if [segment["number"] for segment in segments] != list(range(len(segments))):
        raise BadRecord("segments: they must be numbered from 0, in order")
    settled = {segment["number"] for segment in segments if segment.get("fork_step") is not None}
    parents = {segment["number"]: {segment.get("parent")} - {None} for segment in segments}
    if not set().union(*parents.values()) <= settled:
        raise BadRecord("segments: a parent is not a segment that has begun")
    try:
        graphlib.TopologicalSorter(parents).prepare()
    except graphlib.CycleError:
        raise BadRecord("segments: one is its own ancestor") from None
