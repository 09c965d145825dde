"""Notes at steps: by step, of their run alone, and no id is used twice."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run
from db.records import step_notes
from db.records.step_notes import StepNote
from db.store.engine import writing
from tests.db.seed import NOW, add_run, add_segment, add_steps


def add(session: sa.orm.Session, run: Run, step: int, text: str) -> StepNote:
    return step_notes.add_step_note(session, run=run, step=step, text=text, author="me", now=NOW)


def test_the_notes_of_a_run_come_by_step_and_without_those_of_others(session: Session) -> None:
    run, other = add_run(session), add_run(session, "r2")
    late, early = add(session, run, 30, "late"), add(session, run, 10, "early")
    again = add(session, run, 10, "again")
    theirs = add(session, other, 5, "theirs")
    assert step_notes.step_notes(session, run=run) == [early, again, late]
    assert step_notes.num_step_notes(session, run=run) == 3
    assert step_notes.step_note(session, run=run, note_id=theirs.id) is None


def test_the_id_of_a_deleted_note_is_not_used_again(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        first = add(session, run, 1, "first").id
        step_notes.delete_step_note(session, note=step_notes.step_notes(session, run=run)[0])
        assert add(session, run, 1, "second").id > first


def test_the_last_step_is_the_highest_also_of_a_discarded_branch(session: Session, run: Run) -> None:
    assert step_notes.last_step(session, run=run) is None
    add_steps(session, run, add_segment(session, run, "a"), range(150))
    add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 120))
    assert step_notes.last_step(session, run=run) == 149
