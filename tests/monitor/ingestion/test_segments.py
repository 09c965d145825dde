"""A new segment takes the detection back to its first step."""

from lossguard.protocol import API
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import noise, obey


def test_after_a_rollback_the_detectors_hold_nothing_of_the_discarded_branch(http: TestClient) -> None:
    """What is learnt after the fork equals what a run that never left the line has learnt."""
    straight, forked = (Trainer(http, name, capabilities=[]) for name in ("straight", "forked"))
    quiet = noise(5, 400)
    straight.report(straight.open("a"), range(400), {"loss": quiet})
    forked.report(forked.open("a"), range(300), {"loss": quiet[:280] + [9.0] * 20})
    segment = forked.open("b", 280, "rewind")
    forked.report(segment, range(280, 400), {"loss": quiet[280:]})
    spike = {"loss": [quiet[0] + 1.0] * 4}
    straight.report(0, range(400, 404), spike)
    forked.report(segment, range(400, 404), spike)
    scores = [trainer.get("/incidents")[-1]["score"] for trainer in (straight, forked)]
    assert scores[0] == scores[1]


def test_a_spool_that_arrives_late_does_not_take_over_the_live_line(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(100), {"loss": noise(1, 100)})
    body = {"key": "late", "fork_step": 40, "reason": "resume", "order": None, "opened_at": 1.0}
    late = http.post(f"{API}/runs/r1/segments", json=body).json()["segment"]
    trainer.report(late, range(40, 60), {"loss": [9.0] * 20})
    assert trainer.get()["newest_step"]["step"] == 99
    assert trainer.get("/incidents") == []


def test_a_declared_change_in_the_replayed_stretch_is_no_incident_after_the_rollback(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    loss = [value + (0.5 if step >= 400 else 0.0) for step, value in enumerate(noise(4, 560))]
    checkpoints = list(range(0, 451, 50))
    event = {"key": "e1", "step": 400, "time": 1.0, "kind": "data_mix", "details": {}}
    trainer.report(segment, range(400), {"loss": loss[:400]}, restorable_steps=checkpoints)
    trainer.report(segment, range(400, 560), {"loss": loss[400:]}, events=[event])
    (order,) = trainer.report(segment, [560], {"loss": [float("nan")]})["orders"]
    assert order["rewind_to"] == 450
    segment = obey(trainer, order)
    trainer.report(segment, range(450, 800), {"loss": [value + 0.5 for value in noise(6, 350)]})
    assert len(trainer.get("/incidents")) == 1
    assert [one["state"] for one in trainer.get()["interventions"]] == ["verified"]
