"""Rows that wait for others like them are there whenever somebody looks."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands
from db.models import Run, RunStatus, Segment, Step
from db.store import bulk
from db.store.engine import reading, writing
from tests.db.seed import add_run, add_segment, statements_of


def give(session: Session, run: Run, *steps: int) -> None:
    columns = {"run_pk": run.pk, "segment": 0, "step": list(steps), "time": [0.0] * len(steps), "values": b""}
    bulk.insert_soon(session, Step, columns)


def give_twice(engine: sa.Engine, run: Run) -> None:
    with writing(engine) as session:
        give(session, run, 1, 2)
        give(session, run, 1)


def stored(engine: sa.Engine) -> list[int]:
    with reading(engine) as session:
        return list(session.scalars(sa.select(Step.step).order_by(Step.step)))


def test_rows_of_many_calls_are_one_statement(engine: sa.Engine) -> None:
    statements = statements_of(engine)
    with writing(engine) as session:
        run = add_run(session)
        session.flush()
        for step in range(5):
            give(session, run, step)
    assert len([statement for statement in statements if "INTO steps" in statement]) == 1
    assert stored(engine) == [0, 1, 2, 3, 4]


def test_every_question_sees_them(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        session.flush()
        give(session, run, 1)
        assert session.scalar(sa.select(Step.step)) == 1
        give(session, run, 2)
        assert session.get(Step, (run.pk, 0, 2)) is not None
        give(session, run, 3)
        assert bulk.read(session, "SELECT max(step) FROM steps WHERE run_pk = ?", (run.pk,)) == [(3,)]


def test_no_more_than_so_many_of_them_wait(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        session.flush()
        give(session, run, *range(bulk.MAX_WAITING_ROWS))
        assert not session.info[bulk.WAITING]
    assert stored(engine) == list(range(bulk.MAX_WAITING_ROWS))


def test_a_row_that_cannot_be_stored_rolls_its_transaction_back(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
    with pytest.raises(sa.exc.IntegrityError):
        give_twice(engine, run)
    assert stored(engine) == []


def test_a_transaction_that_is_rolled_back_leaves_nothing_for_the_next(engine: sa.Engine) -> None:
    with Session(engine) as session:
        run = add_run(session)
        session.commit()
        give(session, run, 1)
        session.rollback()
        give(session, run, 2)
        session.commit()
    assert stored(engine) == [2]


def test_changes_of_rows_outside_of_the_session_are_one_statement_for_each_class(engine: sa.Engine) -> None:
    with writing(engine) as session:
        runs = [add_run(session, f"r{number}") for number in range(3)]
        segments = [add_segment(session, run, "a") for run in runs]
        statuses = [commands.run_status_of(session, run=run, now=1.0) for run in runs]
    statements = statements_of(engine)
    gaps = [[0.1, 1e-300, 2.5], [], None]
    with writing(engine) as session:
        for segment, status, report_gaps in zip(segments, statuses, gaps, strict=True):
            bulk.update_soon(session, segment, {"last_step": 2**53 - 1, "num_steps": 1})
            bulk.update_soon(session, segment, {"last_step": 7, "num_steps": 2})
            changed = {"last_step_at": 1.8e9 + 0.1, "expected_by": None, "latest_values": {'a"\\b': "NaN"}}
            bulk.update_soon(session, status, changed | {"report_gaps": report_gaps})
    assert sorted(statement.split()[1] for statement in statements if statement.startswith("UPDATE")) == [
        "pulses",
        "segments",
    ]
    with reading(engine) as session:
        assert [(one.last_step, one.num_steps) for one in session.scalars(sa.select(Segment))] == [(7, 2)] * 3
        stored = session.scalars(sa.select(RunStatus).order_by(RunStatus.run_pk)).all()
        assert [one.report_gaps for one in stored] == gaps
        assert {(one.last_step_at, one.expected_by) for one in stored} == {(1.8e9 + 0.1, None)}
        assert stored[0].latest_values == {'a"\\b': "NaN"}


def test_every_question_sees_such_changes_and_a_rollback_forgets_them(engine: sa.Engine) -> None:
    with writing(engine) as session:
        segment = add_segment(session, add_run(session), "a")
    found = sa.select(Segment.num_steps)
    with Session(engine) as session:
        bulk.update_soon(session, segment, {"num_steps": 3})
        assert session.scalar(found) == 3
        bulk.update_soon(session, segment, {"num_steps": 4})
        session.rollback()
        assert session.scalar(found) == 0
        session.commit()
        assert session.scalar(found) == 0


def test_keys_are_asked_for_in_parts_and_all_of_them() -> None:
    parts = list(bulk.key_parts(iter(range(1001))))
    assert [len(part) for part in parts] == [bulk.KEYS_PER_QUERY, bulk.KEYS_PER_QUERY, 1]
    assert [key for part in parts for key in part] == list(range(1001))
    assert list(bulk.key_parts([])) == []


def test_a_question_mark_and_a_percent_sign_in_quotes_are_text(engine: sa.Engine) -> None:
    with reading(engine) as session:
        statement = "SELECT 'why? 100%' || CAST(? AS VARCHAR(9)), 7 % 4 AS \"a?\""
        assert bulk.read(session, statement, ("!",)) == [("why? 100%!", 3)]
