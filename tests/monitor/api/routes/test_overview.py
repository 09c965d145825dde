from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, obey, proposed, train_until_nan


def test_a_list_says_where_each_run_stands(http: TestClient) -> None:
    Trainer(http, "quiet", config={"tags": ["a"], "lr": 1.0}, started_at=NOW + 1)
    proposed(http, total_steps=1000)
    first, second = http.get(f"{API}/overview").json()
    assert (first["id"], first["step"], first["metrics"], first["tags"]) == ("quiet", None, {}, ["a"])
    assert (second["id"], second["step"], second["metrics"]["loss"]) == ("r1", 300, "NaN")
    assert (second["open_incidents"], second["waiting"], second["total_steps"]) == (1, 1, 1000)
    assert "config" not in first
    with_config = http.get(f"{API}/overview?project=gpt&config=true").json()
    assert with_config[0]["config"]["lr"] == 1.0
    assert http.get(f"{API}/overview?project=other").json() == []


def verdict_of(trainer: Trainer) -> tuple[str, str]:
    """That of the run, which is the one of the list."""
    shown, (listed,) = trainer.get(), trainer.http.get(f"{API}/overview").json()
    assert (shown["verdict"], shown["sentence"]) == (listed["verdict"], listed["sentence"])
    return shown["verdict"], shown["sentence"]


def test_a_diverged_run_stays_diverged_after_its_proposal_was_rejected(http: TestClient) -> None:
    """Its incident is closed, and the detection took the level as the new baseline: the level is what it is."""
    trainer = Trainer(http, policy={"mode": "approve"})
    segment, losses = trainer.open("a"), noise(1, 1_500)
    assert verdict_of(trainer) == ("healthy", "Healthy: no step yet")
    trainer.report(segment, range(300), {"loss": losses[:300]}, restorable_steps=CHECKPOINTS)
    assert verdict_of(trainer) == ("healthy", "Healthy: loss in band for 0 s")
    trainer.report(segment, range(300, 340), {"loss": [4.4 + loss for loss in losses[300:340]]})
    verdict, sentence = verdict_of(trainer)
    assert verdict == "diverged"
    assert sentence.startswith("DIVERGED: loss 7.41, expected 3, for 39 steps. Roll back to ")
    (proposal,) = trainer.get()["interventions"]
    http.post(f"{API}/interventions/{proposal['id']}/reject")
    for first in range(340, 1_500, 40):
        trainer.report(segment, range(first, first + 40), {"loss": [4.4 + loss for loss in losses[first:][:40]]})
    assert {each["state"] for each in trainer.get("/incidents")} == {"closed"}
    verdict, sentence = verdict_of(trainer)
    assert verdict == "diverged"
    assert sentence == f"DIVERGED: loss 7.4, expected 3, for {1_499 - 300:,} steps. Roll back to 300?"
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": NOW})
    assert verdict_of(trainer) == ("ended_open", "Ended diverged: loss 7.4, expected 3")


def test_a_run_that_was_rolled_back_is_recovering_until_that_is_verified(http: TestClient) -> None:
    trainer = Trainer(http, policy={"mode": "auto"})
    order = train_until_nan(trainer)["orders"][0]
    assert verdict_of(trainer)[1] == f"DIVERGED: loss NaN, expected 3. Rolling back to {order['rewind_to']}"
    segment, first = obey(trainer, order), order["rewind_to"]
    trainer.report(segment, range(first, first + 20), {"loss": noise(2, 20)})
    (intervention,) = trainer.get()["interventions"]
    until = intervention["details"]["verify_at"]
    assert verdict_of(trainer) == ("recovering", f"Recovering: rolled back to {first}, to be verified at step {until}")
    trainer.report(segment, range(first + 20, until + 10), {"loss": noise(3, until - first - 10)})
    verdict, sentence = verdict_of(trainer)
    assert (verdict, sentence[:21]) == ("healthy", "Healthy: loss in band")


def test_a_level_that_a_person_accepts_is_healthy(http: TestClient) -> None:
    trainer = Trainer(http, policy={"mode": "observe"})
    segment, losses = trainer.open("a"), noise(1, 400)
    trainer.report(segment, range(300), {"loss": losses[:300]})
    trainer.report(segment, range(300, 400), {"loss": [2.0 + loss for loss in losses[300:]]})
    assert verdict_of(trainer)[0] == "diverged"
    assert http.post(f"{API}/runs/r1/accept-level").status_code == 200
    assert verdict_of(trainer)[0] == "healthy"
