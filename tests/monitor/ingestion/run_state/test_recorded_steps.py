"""With what a new segment's first steps are compared, from the reports of a trainer to the incident."""

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Order
from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, obey


def report(
    trainer: Trainer, segment: int, first: int, loss: Sequence[float | None], metrics: Any = None, **others: Any
) -> dict[str, Any]:
    """Steps from `first` on, each with the batch of its number."""
    steps = range(first, first + len(loss))
    columns: Any = {"loss": loss, "batch_index": [float(step) for step in steps]} | (metrics or {})
    return trainer.report(segment, steps, columns, **others)


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


def test_a_process_that_dies_before_its_first_step_hides_the_record_of_the_one_before_it_not(http: TestClient) -> None:
    trainer = trained(http, noise(1, 300))
    trainer.open("b", 250, "resume")
    report(trainer, trainer.open("c", 250, "resume"), 250, noise(2, 50))
    assert kinds(trainer) == ["replay_mismatch"]


@pytest.mark.parametrize("fork_step", [250, None])
def test_a_replay_that_ends_after_a_few_steps_is_an_incident_of_its_own_segment(
    http: TestClient, fork_step: int | None
) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    short = trainer.open("b", 250, "resume")
    report(trainer, short, 250, noise(2, 3))
    report(trainer, trainer.open("c", fork_step, "resume"), 250, loss[250:])
    (incident,) = trainer.get("/incidents")
    assert (incident["segment"], incident["state"], incident["outcome"]) == (short, "closed", "recovered")


def test_each_resume_is_compared_with_the_segment_before_it(http: TestClient) -> None:
    loss, other = noise(1, 300), noise(2, 300)
    trainer = trained(http, loss)
    report(trainer, trainer.open("b", 280, "resume"), 280, [*loss[280:], *other[:60]])
    report(trainer, trainer.open("c", 320, "resume"), 320, other[20:60])
    assert kinds(trainer) == []


def test_a_replay_that_was_stopped_and_goes_on_is_not_compared_with_the_line_that_it_replaced(http: TestClient) -> None:
    """Rounding grows with every update, so after many of them the losses of two replays differ by more."""
    loss, other = noise(1, 300), noise(2, 300)
    trainer = trained(http, loss)
    report(trainer, trainer.open("b", 200, "resume"), 200, [*loss[200:220], *other[220:250]])
    report(trainer, trainer.open("c", 250, "resume"), 250, other[250:])
    assert kinds(trainer) == []


def test_a_run_that_logs_its_loss_at_every_tenth_step_alone_is_compared_too(http: TestClient) -> None:
    def sparse(trainer: Trainer, segment: int, first: int, seed: int) -> None:
        loss = [value if k % 10 == 0 else None for k, value in enumerate(noise(seed, 600))]
        report(trainer, segment, first, loss, {"grad_norm": noise(seed, 600)})

    trainer = Trainer(http)
    sparse(trainer, trainer.open("a"), 0, seed=1)
    sparse(trainer, trainer.open("b", 500, "resume"), 500, seed=2)
    assert kinds(trainer) == ["replay_mismatch"]


def test_losses_shortly_before_an_incident_are_no_reference(http: TestClient) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    report(trainer, 0, 300, [float("nan")])
    report(trainer, trainer.open("b", 295, "resume"), 295, noise(2, 50))
    assert kinds(trainer) == ["nonfinite"]


@pytest.mark.parametrize(("declared_at", "found"), [(None, ["replay_mismatch"]), (255, [])])
def test_a_learning_rate_that_was_changed_with_a_declaration_is_no_record(
    http: TestClient, declared_at: int | None, found: list[str]
) -> None:
    loss, rates = noise(1, 300), [1e-3] * 255 + [5e-4] * 45
    trainer = Trainer(http)
    event: dict[str, Any] = {"key": "e", "step": declared_at, "time": NOW, "kind": "learning_rate", "details": {}}
    events = [] if declared_at is None else [event]
    report(trainer, trainer.open("a"), 0, loss, {"lr": rates}, restorable_steps=CHECKPOINTS, events=events)
    report(trainer, trainer.open("b", 250, "rewind"), 250, loss[250:], {"lr": [1e-3] * 50})
    assert kinds(trainer) == found


def test_an_incident_that_ended_before_the_restored_step_leaves_the_record_in_use(http: TestClient) -> None:
    loss = noise(1, 300)
    loss[100] = float("nan")
    trainer = trained(http, loss, capabilities=[])
    report(trainer, trainer.open("b", 250, "resume"), 250, noise(2, 50))
    assert kinds(trainer) == ["nonfinite", "replay_mismatch"]


def test_every_answer_has_a_notice_of_a_mismatch_until_it_ends(http: TestClient) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    assert "notices" not in trainer.report(0, [], {})
    segment = trainer.open("b", 250, "resume")
    (notice,) = report(trainer, segment, 250, noise(2, 50))["notices"]
    assert notice["text"] == (
        "incident 1: steps from 250 on were computed again with other batches: this run skips no more; let "
        "guard.steps(..) read the batches, from the DataLoader or from lossguard.torch.Drawn(get_batch)"
    )
    assert trainer.report(segment, [], {})["notices"] == [notice]
    assert http.post(f"{API}/runs/r1/accept-replay").status_code == 200
    assert "notices" not in trainer.report(segment, [], {})


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


def test_what_a_resume_computes_again_is_no_reason_of_the_rollback_before_it(http: TestClient) -> None:
    """A process that crashes after every resume would add a reason each time."""
    loss = noise(1, 300)
    trainer = trained(http, loss)
    (order,) = report(trainer, 0, 300, [float("nan")])["orders"]
    segment, first = obey(trainer, order), order["rewind_to"]
    report(trainer, segment, first, loss[first:][:40])
    (before,) = trainer.get()["interventions"]
    assert before["state"] == "applied"
    report(trainer, trainer.open("c", first, "resume"), first, loss[first:][:40])
    (after,) = trainer.get()["interventions"]
    assert after["details"]["reasons"] == before["details"]["reasons"]


@pytest.mark.parametrize("change", [{"lr_scale": 0.5}, {"remedies": ["clip"]}])
def test_rows_from_the_step_on_at_which_an_order_changed_the_updates_are_no_record(
    http: TestClient, sqlite_engine: sa.Engine, change: dict[str, Any]
) -> None:
    loss = noise(1, 300)
    trainer = trained(http, loss)
    http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 200, "skip_to": 200})
    (order,) = trainer.report(0, [], {})["orders"]
    with Session(sqlite_engine) as session, session.begin():
        stored = session.get_one(Order, order["id"])
        for name, value in change.items():
            setattr(stored, name, value)
    report(trainer, obey(trainer, order), 200, [*loss[200:210], *noise(2, 50)])
    report(trainer, trainer.open("c", 200, "resume"), 200, noise(3, 70))
    assert kinds(trainer) == []
    report(trainer, trainer.open("d", 250, "resume"), 250, noise(4, 20))
    assert kinds(trainer) == ["replay_mismatch"]
    report(trainer, trainer.open("e", 150, "resume"), 150, noise(5, 20))  # recorded before the order
    assert kinds(trainer) == ["replay_mismatch"]
