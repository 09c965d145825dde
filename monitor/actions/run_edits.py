"""Edits of a run by people: its name, tags and note, and whether it is archived."""

from sqlalchemy.orm import Session

from db import run_settings
from db.models import Run
from db.records import access
from lossguard.vocabulary.states import RunState
from monitor.ingestion import runs
from monitor.problems import Problem
from monitor.schemas import RunEditIn


def edit(session: Session, run_id: str, spec: RunEditIn, *, who: str, now: float) -> Run:
    """Change what `spec` names, and nothing else. The audit trail keeps the old and the new values.

    Raises Problem 404, 409 when the run is to be archived while it runs, and 422 when nothing is named.
    """
    named = {name: getattr(spec, name) for name in spec.model_fields_set if getattr(spec, name) is not None}
    if not named:
        raise Problem(422, "nothing to change", "name at least one of name, tags, note and archived", ["body"])
    run = runs.lock(session, run_id)
    if named.get("archived") and run.state == RunState.RUNNING:
        detail = f"{run_id} is running: it can be archived when it has ended"
        raise Problem(409, "not possible now; nothing was changed", detail, ["body", "archived"])
    before = {name: _value(run, name) for name in named}
    if (archived := named.pop("archived", None)) is not None:
        run.archived_at = (run.archived_at or now) if archived else None
    for name, value in named.items():
        setattr(run, name, value or None if name == "note" else value)
    if "tags" in named:
        run_settings.save(session, run)
    changes = {name: {"from": old, "to": _value(run, name)} for name, old in before.items()}
    access.record(session, who=who, action="edit", run=run.id, details=changes, now=now)
    return run


def _value(run: Run, name: str) -> object:
    return run.archived_at is not None if name == "archived" else getattr(run, name)
