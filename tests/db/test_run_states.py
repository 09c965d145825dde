"""Rows and SQL agree on what the state of a run or of an intervention means."""

import itertools

import pytest
import sqlalchemy as sa

from db import commands, run_states
from db.models import Intervention, Order, Run
from db.store.engine import writing
from lossguard.vocabulary.states import InterventionState, OrderKind, OrderState, RunState
from tests.db.seed import NOW, add_run


@pytest.mark.parametrize("run_state", RunState)
def test_a_proposal_needs_a_person_and_so_does_a_hold_of_a_run_that_has_not_ended(
    engine: sa.Engine, run_state: RunState
) -> None:
    with writing(engine) as session:
        run = add_run(session)
        run.state = run_state
        for number, (kind, state) in enumerate(itertools.product(OrderKind, InterventionState)):
            commands.save_intervention(
                session, run=run, number=number, now=NOW, kind=kind, state=state, attempt=1, details={}
            )
        asking = sa.select(Intervention).join(Run).where(run_states.needs_a_person_in_sql())
        found = {(each.kind, each.state) for each in session.scalars(asking)}
    proposals = {(kind, InterventionState.PROPOSED) for kind in OrderKind}
    hold = {(OrderKind.HOLD, InterventionState.APPLIED)} if run_state is RunState.RUNNING else set()
    assert found == proposals | hold


@pytest.mark.parametrize(
    ("order", "target", "rewound"),
    [
        (None, 40, None),
        (Order(state=OrderState.OPEN), 40, None),
        (Order(state=OrderState.FAILED), 40, None),
        (Order(state=OrderState.APPLIED), 40, 40),
        (Order(state=OrderState.APPLIED, rewound_to=30), 30, 30),
        (Order(state=OrderState.APPLIED, rewound_to=0), 0, 0),
    ],
)
def test_a_rollback_goes_to_the_planned_step_unless_the_trainer_reported_another(
    order: Order | None, target: int | None, rewound: int | None
) -> None:
    planned = Intervention(kind=OrderKind.ROLLBACK, rewind_to=40)
    assert run_states.rewind_target(planned, order) == target
    assert run_states.rewound_step(planned, order) == rewound


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


def test_a_query_finds_the_runs_that_have_stopped(engine: sa.Engine) -> None:
    with writing(engine) as session:
        runs = [add_run(session, state) for state in RunState]
        for run in runs:
            run.state = RunState(run.id)
        session.flush()
        for before in (NOW - 1.0, NOW, NOW + 1.0):
            found = set(session.scalars(sa.select(Run.id).where(run_states.has_stopped_in_sql(before))))
            assert found == {run.id for run in runs if run_states.has_stopped(run, before)}
