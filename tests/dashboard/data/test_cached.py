"""What pages know of the incidents and interventions of a run."""

import time

import pytest
import sqlalchemy as sa

from dashboard.data import cached
from db import queries
from db.models import Run
from db.store.engine import reading, writing
from tests.dashboard.seed import save_incident
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


def read(engine: sa.Engine, run: Run) -> list[tuple[int, str]]:
    with reading(engine) as session:
        found = cached.changed_rows(session, run, queries.incidents)
        return [(each.number, each.state) for each in found]


def test_a_later_read_has_new_and_changed_incidents_beside_the_old_ones(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        save_incident(session, run, 1, state="closed")
        save_incident(session, run, 2)
    assert read(store, run) == [(1, "closed"), (2, "open")]
    with writing(store) as session:
        save_incident(session, run, 2, now=time.time(), state="closed")
        save_incident(session, run, 3, now=time.time())
    assert read(store, run) == [(1, "closed"), (2, "closed"), (3, "open")]


def test_a_run_that_was_deleted_leaves_nothing_to_the_next_one_of_its_name(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        save_incident(session, run)
    assert read(store, run) == [(1, "open")]
    with writing(store) as session:
        session.execute(sa.delete(Run))
    with writing(store) as session:
        again = add_run(session, "r1", started_at=time.time())
    assert again.pk == run.pk
    assert read(store, again) == []
