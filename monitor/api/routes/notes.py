"""Notes of people at steps of a run."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from db import queries
from db.records.step_notes import step_notes
from monitor.actions import step_notes as actions
from monitor.api import responses
from monitor.api.auth import Operator, Reader
from monitor.api.dependencies import Now, ReadSession, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.problems import unknown
from monitor.schemas import RecordId, RunId, StepNoteIn

router = APIRouter(prefix="/runs", tags=["notes"], route_class=TypedJsonRoute)


@router.get("/{run_id}/notes")
def notes(run_id: RunId, _who: Reader, session: ReadSession) -> list[dict[str, Any]]:
    """The notes of a run, by step."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return [responses.record(note) for note in step_notes(session, run=run)]


@router.post("/{run_id}/notes", status_code=201)
def add(run_id: RunId, spec: StepNoteIn, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Write a note at a step of the run; `step` null: at the newest."""
    return responses.record(actions.add(session, run_id, spec, who=who.author, now=now))


@router.delete("/{run_id}/notes/{note_id}", status_code=204)
def delete(run_id: RunId, note_id: Annotated[RecordId, Path()], who: Operator, session: WriteSession, now: Now) -> None:
    """Delete a note. The audit trail keeps what it said."""
    actions.delete(session, run_id, note_id, who=who.author, now=now)
