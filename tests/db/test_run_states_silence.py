"""When a run counts as silent, and when no report of it is awaited any more."""

import pytest
import sqlalchemy as sa

from db import run_states
from db.models import Run
from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from tests.db.seed import NOW, add_run


@pytest.mark.parametrize(
    ("last_report", "since", "has_stopped"),
    [
        (0.0, 0.0, True),
        (399.0, 0.0, True),
        (400.0, 0.0, False),  # ten minutes ago
        (0.0, 400.0, True),
        (0.0, 401.0, False),  # who could have taken its reports?
    ],
)
def test_reports_have_stopped_after_ten_minutes_in_which_somebody_took_reports(
    last_report: float, since: float, has_stopped: bool
) -> None:
    run = Run(state=RunState.RUNNING, last_report_at=last_report)
    assert run_states.has_stopped(run, run_states.stopped_before(1000.0, since=since)) == has_stopped


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1.0])
def test_a_query_finds_the_runs_that_have_stopped(engine: sa.Engine, state: RunState, seconds: float) -> None:
    with writing(engine) as session:
        run = add_run(session)
        run.state = state
        session.flush()
        before = NOW + seconds
        found = session.scalars(sa.select(Run.id).where(run_states.has_stopped_in_sql(before))).all()
        assert bool(found) == run_states.has_stopped(run, before)
