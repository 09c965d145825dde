"""Edits of a run by people and replays: its name, tags and note, notes at steps, and the verdict on an incident."""

from typing import Any

from sqlalchemy.orm import Session

from db import queries, run_settings
from db.models import Incident, Run
from db.records import access, step_notes
from db.records.step_notes import StepNote
from lossguard.vocabulary.protocol import MAX_STEP_NOTES
from lossguard.vocabulary.states import RunState
from monitor.ingestion import runs
from monitor.problems import Problem, not_possible, unknown
from monitor.schemas import RunEditIn, StepNoteIn


def edit_run(session: Session, run_id: str, spec: RunEditIn, *, who: str, now: float) -> Run:
    """Change what `spec` names, and nothing else. The audit trail keeps the old and the new values.

    Raises Problem 404, 409 when the run is to be archived while it runs, and 422 when nothing is named.
    """
    named = spec.model_dump(exclude_unset=True, exclude_none=True)
    if not named:
        raise Problem(422, "nothing to change", "name at least one of name, tags, note and archived", ["body"])
    run = runs.lock(session, run_id)
    if named.get("archived") and run.state == RunState.RUNNING:
        raise not_possible(f"{run_id} is running: it can be archived when it has ended", "body", "archived")
    before = {name: _value(run, name) for name in named}
    for name, value in named.items():
        if name == "archived":
            run.archived_at = (run.archived_at or now) if value else None
        else:
            setattr(run, name, value or None if name == "note" else value)
    if "tags" in named:
        run_settings.save(session, run)
    changes = {name: {"from": old, "to": _value(run, name)} for name, old in before.items()}
    access.record(session, who=who, action="edit", run=run.id, details=changes, now=now)
    return run


def _value(run: Run, name: str) -> object:
    return run.archived_at is not None if name == "archived" else getattr(run, name)


def add_note(session: Session, run_id: str, spec: StepNoteIn, *, who: str, now: float) -> StepNote:
    """Write a note at a step; without one, at the newest of the live line (0 before the first one).

    Raises Problem 404, 409 when the run has as many notes as it may, and 422 for a step that it has not trained.
    """
    run, step = runs.lock(session, run_id), spec.step
    if step_notes.num_step_notes(session, run=run) >= MAX_STEP_NOTES:
        raise not_possible(f"the run has {MAX_STEP_NOTES} notes, which is the limit; delete some")
    if step is None:
        newest = queries.newest_step(session, run=run)
        step = 0 if newest is None else newest.step
    elif step > (last := step_notes.last_step(session, run=run) or 0):
        detail = f"step {step} has not been reported; name one from 0 to {last}, or none for the newest"
        raise Problem(422, "no such step", detail, ["body", "step"])
    note = step_notes.add_step_note(session, run=run, step=step, text=spec.text, author=who, now=now)
    access.record(session, who=who, action="note", run=run.id, details=_facts(note), now=now)
    return note


def delete_note(session: Session, run_id: str, note_id: int, *, who: str, now: float) -> None:
    """Delete a note; the audit trail keeps what it said. Raises Problem 404."""
    run = runs.lock(session, run_id)
    note = step_notes.step_note(session, run=run, note_id=note_id)
    if note is None:
        raise unknown("note", note_id)
    details = _facts(note) | {"author": note.author}
    step_notes.delete_step_note(session, note=note)
    access.record(session, who=who, action="delete note", run=run.id, details=details, now=now)


def _facts(note: StepNote) -> dict[str, object]:
    return {"note": note.id, "step": note.step, "text": note.text}


def find_incident(session: Session, run_id: str, number: int) -> Incident:
    """Raises Problem 404 when there is no such run or incident."""
    incident = queries.incident_numbered(session, run=runs.named(session, run_id), number=number)
    if incident is None:
        raise unknown("incident", number)
    return incident


def record_verdict(
    session: Session, run_id: str, number: int, verdict: dict[str, Any], *, who: str, now: float
) -> Incident:
    """Write a verdict to the incident; it replaces an earlier one. Raises Problem 404.

    A verdict decides nothing, so a trainer's token is enough. The audit trail keeps who wrote it.
    """
    run = runs.lock(session, run_id)
    incident = find_incident(session, run_id, number)
    incident.verdict, incident.changed_at = verdict, now
    details = {"incident": number, **{name: verdict[name] for name in ("cause", "sentence", "culprits", "version")}}
    access.record(session, who=who, action="verdict", run=run.id, details=details, now=now)
    return incident
