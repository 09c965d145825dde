"""Runs whose reports left no status: lists and searches find them all the same."""

import sqlalchemy as sa

from db import commands
from db.runs import overview, pages
from db.runs.pages import RunFilter
from db.store.engine import writing
from lossguard.vocabulary.run_search import parse
from lossguard.vocabulary.states import RunState
from tests.db.seed import NOW, add_run, add_segment, add_steps


def test_a_run_without_a_status_gets_the_newest_values_that_its_steps_have(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(20))
        assert overview.missing(session) == [], "a running run gets its status with its next report"
        commands.finish_run(session, run=run, state=RunState.FINISHED, at=NOW, now=NOW)
        assert overview.missing(session) == ["r1"]
        overview.fill_in(session, run=run)
        session.flush()
        assert overview.missing(session) == []
        standing = overview.standings(session, runs=[run])[run.pk]
        assert standing.step == 19
        search = RunFilter(search=parse(f"loss={standing.metrics['loss']}"))
        assert pages.ids(session, where=search, now=NOW) == ["r1"]
