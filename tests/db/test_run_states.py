"""Rows and SQL agree on what needs a person, and a rollback's step is where the trainer really went."""

import itertools

import pytest
import sqlalchemy as sa

from db import commands, queries, run_states
from db.models import Intervention, Order
from db.store.engine import reading, writing
from lossguard.vocabulary.states import InterventionState, OrderKind, OrderState
from tests.db.seed import NOW, add_run


def test_rows_and_sql_agree_on_what_needs_a_person(engine: sa.Engine) -> None:
    kinds_and_states = list(itertools.product(OrderKind, InterventionState))
    with writing(engine) as session:
        run = add_run(session)
        for number, (kind, state) in enumerate(kinds_and_states):
            commands.save_intervention(
                session, run=run, number=number, now=NOW, kind=kind, state=state, attempt=1, details={}
            )
    with reading(engine) as session:
        rows = queries.interventions(session, run=queries.runs(session)[0])
        found = session.scalars(sa.select(Intervention.number).where(run_states.needs_a_person_in_sql()))
        assert set(found) == {row.number for row in rows if run_states.needs_a_person(row)}
    expected = {(kind, InterventionState.PROPOSED) for kind in OrderKind} | {
        (OrderKind.HOLD, InterventionState.APPLIED)
    }
    assert {(row.kind, row.state) for row in rows if run_states.needs_a_person(row)} == expected


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
