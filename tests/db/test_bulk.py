"""Rows that wait for others like them are there whenever somebody looks."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import bulk
from db.engine import reading, writing
from db.models import Run, Step
from tests.db.seed import add_run


def give(session: Session, run: Run, *steps: int) -> None:
    columns = {"run_pk": run.pk, "segment": 0, "step": list(steps), "time": [float(step) for step in steps]}
    bulk.insert_soon(session, Step, columns)


def give_twice(engine: sa.Engine, run: Run) -> None:
    with writing(engine) as session:
        give(session, run, 1, 2)
        give(session, run, 1)


def stored(engine: sa.Engine) -> list[int]:
    with reading(engine) as session:
        return list(session.scalars(sa.select(Step.step).order_by(Step.step)))


def test_rows_of_many_calls_are_one_statement(engine: sa.Engine) -> None:
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement))
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
