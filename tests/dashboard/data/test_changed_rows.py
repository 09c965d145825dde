"""What pages know of the incidents and interventions of a run."""

import time

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dashboard.data import changed_rows
from db import commands
from db.models import Run
from db.store.engine import reading, writing
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


def save(session: Session, run: Run, number: int, now: float, state: str = "closed") -> None:
    commands.save_incident(
        session, run=run, number=number, segment=0, now=now, kind="loss_spike", state=state, signal="loss",
        onset_step=1, detected_step=2, peak_step=None, end_step=None, score=None, outcome=None, details={},
    )  # fmt: skip


def read(engine: sa.Engine, run: Run) -> list[tuple[int, str]]:
    with reading(engine) as session:
        found = changed_rows.incidents(session, url=str(engine.url), run=run)
        return [(each.number, each.state) for each in found]


def test_a_later_read_has_new_and_changed_incidents_beside_the_old_ones(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        save(session, run, 1, 1.0)
        save(session, run, 2, 1.0, "open")
    assert read(store, run) == [(1, "closed"), (2, "open")]
    with writing(store) as session:
        save(session, run, 2, time.time(), "closed")
        save(session, run, 3, time.time(), "open")
    assert read(store, run) == [(1, "closed"), (2, "closed"), (3, "open")]


def test_a_run_that_was_deleted_leaves_nothing_to_the_next_one_of_its_name(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        save(session, run, 1, 1.0)
    assert read(store, run) == [(1, "closed")]
    with writing(store) as session:
        session.execute(sa.delete(Run))
    with writing(store) as session:
        again = add_run(session, "r1", started_at=time.time())
    assert again.pk == run.pk
    assert read(store, again) == []
