"""A run's detection state between the store and the engine: what a saved state lacks is relearnt."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import DetectionState
from monitor.ingestion import detection_state
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import noise, probe_event


def test_a_signal_that_the_stored_state_lacks_is_relearnt_from_the_stored_rows_before_it_is_used(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    norms = [1.0 + abs(value - 3.0) for value in noise(2, 400)]
    trainer.report(trainer.open("a"), range(400), {"loss": noise(1, 400), "grad_norm": norms})
    with Session(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        before = detection_state.load(session, run).detectors.by_signal
        row = session.get_one(DetectionState, run.pk)
        detectors = row.state["detectors"]
        signals = {name: state for name, state in detectors["signals"].items() if name != "grad_norm"}
        row.state = row.state | {"detectors": detectors | {"signals": signals}}
        session.flush()
        after = detection_state.load(session, run).detectors.by_signal
        assert after["loss"].state_dict() == before["loss"].state_dict()
        assert after["grad_norm"].baseline.count == detection_state.SNAPSHOT_EVERY
        assert after["grad_norm"].baseline.level == pytest.approx(before["grad_norm"].baseline.level, abs=0.01)
        session.rollback()


def test_probes_do_not_move_the_detectors(http: TestClient, sqlite_engine: sa.Engine) -> None:
    losses = noise(1, 400)
    for name, every in (("plain", 1000), ("probed", 7)):
        trainer = Trainer(http, name)
        segment = trainer.open("a")
        for first in range(0, 400, 100):
            events = [probe_event(step) for step in range(first, first + 100) if step % every == 6]
            steps = range(first, first + 100)
            trainer.report(segment, steps, {"loss": losses[first : first + 100]}, events=events)
        trainer.open("b", 350, "rewind")  # the detectors are taught again from what is stored
    with Session(sqlite_engine) as session:
        plain, probed = (queries.run_named(session, run_id=name) for name in ("plain", "probed"))
        assert plain is not None
        assert probed is not None
        states = [detection_state.load(session, run).state_dict() for run in (plain, probed)]
        assert states[0] == states[1]
        assert len(queries.probes(session, run=probed)) == 57
        assert queries.events(session, run=probed) == []
