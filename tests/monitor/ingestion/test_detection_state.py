"""A run's detection state between the store and the engine: what a saved state lacks is relearnt."""

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import DetectionState
from monitor.ingestion import detection_state
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, obey, probe_event


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


# Recomputed steps


def report(trainer: Trainer, segment: int, first: int, loss: Sequence[float], **others: Any) -> dict[str, Any]:
    """Steps from `first` on, each with the batch of its number."""
    steps = range(first, first + len(loss))
    return trainer.report(segment, steps, {"loss": loss, "batch_index": [float(step) for step in steps]}, **others)


def trained(http: TestClient, loss: Sequence[float], **values: Any) -> Trainer:
    """A run with these losses, from step 0 on."""
    trainer = Trainer(http, **values)
    report(trainer, trainer.open("a"), 0, loss, restorable_steps=CHECKPOINTS)
    return trainer


def kinds(trainer: Trainer) -> list[str]:
    return [each["kind"] for each in trainer.get("/incidents")]


@pytest.mark.parametrize("fork_step", [250, None])
@pytest.mark.parametrize("same", [True, False])
def test_a_resumed_run_is_compared_with_what_it_recorded_before(
    http: TestClient, fork_step: int | None, same: bool
) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    segment = trainer.open("b", fork_step, "resume")
    report(trainer, segment, 250, loss[250:] if same else noise(2, 50))
    assert kinds(trainer) == [] if same else ["replay_mismatch"]
    if not same:
        (incident,) = trainer.get("/incidents")
        assert (incident["segment"], incident["onset_step"], incident["state"]) == (segment, 250, "open")


def test_a_run_that_goes_on_where_it_ended_has_nothing_to_compare(http: TestClient) -> None:
    trainer = trained(http, noise(1, 300))
    report(trainer, trainer.open("b", 300, "resume"), 300, noise(2, 50))
    assert kinds(trainer) == []


def test_a_process_that_dies_before_its_first_step_hides_the_record_of_the_one_before_it_not(http: TestClient) -> None:
    trainer = trained(http, noise(1, 300))
    trainer.open("b", 250, "resume")
    report(trainer, trainer.open("c", 250, "resume"), 250, noise(2, 50))
    assert kinds(trainer) == ["replay_mismatch"]


def test_each_resume_is_compared_with_the_segment_before_it(http: TestClient) -> None:
    loss, other = noise(1, 300), noise(2, 300)
    trainer = trained(http, loss)
    report(trainer, trainer.open("b", 280, "resume"), 280, [*loss[280:], *other[:60]])
    report(trainer, trainer.open("c", 320, "resume"), 320, other[20:60])
    assert kinds(trainer) == []


def test_losses_shortly_before_an_incident_are_no_reference(http: TestClient) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    report(trainer, 0, 300, [float("nan")])
    report(trainer, trainer.open("b", 295, "resume"), 295, noise(2, 50))
    assert kinds(trainer) == ["nonfinite"]


def test_an_incident_that_ended_before_the_restored_step_leaves_the_record_in_use(http: TestClient) -> None:
    loss = noise(1, 300)
    loss[100] = float("nan")
    trainer = trained(http, loss, capabilities=[])
    report(trainer, trainer.open("b", 250, "resume"), 250, noise(2, 50))
    assert kinds(trainer) == ["nonfinite", "replay_mismatch"]


def test_a_rollback_says_whether_its_recomputed_steps_agree(http: TestClient) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    (order,) = report(trainer, 0, 300, [float("nan")])["orders"]
    segment, first = obey(trainer, order), order["rewind_to"]
    report(trainer, segment, first, [*loss[first:][:40], *noise(3, 40)])
    assert kinds(trainer) == ["nonfinite"]
    (intervention,) = trainer.get()["interventions"]
    text = f"The first 8 recomputed steps, from step {first}, are equal to their record."
    assert text in intervention["details"]["reasons"]
