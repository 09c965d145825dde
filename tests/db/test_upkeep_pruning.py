"""Old runs are deleted some at a time; a prune that is killed has deleted whole runs, and the next one goes on."""

import pytest
import sqlalchemy as sa

from db import commands, upkeep
from db.models import Base
from db.records import access
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from tests.db.seed import add_run, add_segment, add_steps


def end_runs(engine: sa.Engine, num: int) -> None:
    for number in range(num):
        with writing(engine) as session:
            run = add_run(session, f"r{number}")
            add_steps(session, run, add_segment(session, run, "a"), range(20))
            commands.finish_run(session, run=run, state=RunState.FINISHED, at=1.0, now=1.0)


def owners(engine: sa.Engine) -> set[int]:
    """The runs that any row belongs to."""
    with reading(engine) as session:
        tables = [table for table in Base.metadata.sorted_tables if "run_pk" in table.columns]
        return {pk for table in tables for pk in session.scalars(sa.select(table.c.run_pk)) if pk is not None}


def test_a_prune_that_is_killed_leaves_whole_runs_and_the_next_one_goes_on(engine: sa.Engine) -> None:
    end_runs(engine, 7)
    first = upkeep.prune(engine, days=1, now=1e9)
    gone = {next(first).pk}
    first.close()  # as if it were killed here
    left = {run.pk for run in upkeep.old_runs(engine, days=1, now=1e9)}
    assert not gone & left
    assert owners(engine) == left
    gone |= {run.pk for run in upkeep.prune(engine, days=1, now=1e9)}
    assert owners(engine) == set()
    with reading(engine) as session:
        assert sorted(line.run or "" for line in access.trail(session)) == [f"r{number}" for number in range(7)]


def test_a_transaction_that_fails_deletes_nothing(sqlite_engine: sa.Engine) -> None:
    end_runs(sqlite_engine, 2)
    sa.event.listen(sqlite_engine, "before_cursor_execute", _fail_at_the_end)
    with pytest.raises(RuntimeError, match="killed"):
        list(upkeep.prune(sqlite_engine, days=1, now=1e9))
    assert len(owners(sqlite_engine)) == 2


def _fail_at_the_end(_connection: object, _cursor: object, statement: str, *_: object) -> None:
    if statement.startswith("DELETE FROM runs"):
        raise RuntimeError("killed")
