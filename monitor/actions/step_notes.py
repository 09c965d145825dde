"""Notes of people at steps of a run, written and deleted."""

from sqlalchemy.orm import Session

from db import queries
from db.models import Run
from db.records import access, step_notes
from db.records.step_notes import StepNote
from lossguard.vocabulary.protocol import MAX_STEP_NOTES
from monitor.ingestion import runs
from monitor.problems import Problem, unknown
from monitor.schemas import StepNoteIn


def add(session: Session, run_id: str, spec: StepNoteIn, *, who: str, now: float) -> StepNote:
    """Write a note at a step, without one at the newest.

    Raises Problem 404, 409 when the run has as many notes as it may, and 422 for a step that it has not trained.
    """
    run = runs.lock(session, run_id)
    if step_notes.num_step_notes(session, run=run) >= MAX_STEP_NOTES:
        detail = f"the run has {MAX_STEP_NOTES} notes, which is the limit; delete some"
        raise Problem(409, "not possible now; nothing was changed", detail, ["path"])
    step = _newest_step(session, run) if spec.step is None else _checked(session, run, spec.step)
    note = step_notes.add_step_note(session, run=run, step=step, text=spec.text, author=who, now=now)
    access.record(session, who=who, action="note", run=run.id, details=_details(note), now=now)
    return note


def delete(session: Session, run_id: str, note_id: int, *, who: str, now: float) -> None:
    """Delete a note; the audit trail keeps what it said. Raises Problem 404."""
    run = runs.lock(session, run_id)
    note = step_notes.step_note(session, run=run, note_id=note_id)
    if note is None:
        raise unknown("note", note_id)
    details = _details(note) | {"author": note.author}
    step_notes.delete_step_note(session, note=note)
    access.record(session, who=who, action="delete note", run=run.id, details=details, now=now)


def _newest_step(session: Session, run: Run) -> int:
    """Return the newest step of the live line; 0 before the first one."""
    newest = queries.newest_step(session, run=run)
    return 0 if newest is None else newest.step


def _checked(session: Session, run: Run, step: int) -> int:
    last = step_notes.last_step(session, run=run) or 0
    if step > last:
        detail = f"step {step} has not been reported; name one from 0 to {last}, or none for the newest"
        raise Problem(422, "no such step", detail, ["body", "step"])
    return step


def _details(note: StepNote) -> dict[str, object]:
    return {"note": note.id, "step": note.step, "text": note.text}
