"""Runs through the API: registration, reports, lines, costs, and where each run stands."""

import math
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.protocol import API, decode_number
from lossguard.vocabulary.source_facts import SourceFacts
from tests.monitor.client import NOW, TestClient, Trainer, collector
from tests.monitor.scenarios import CHECKPOINTS, noise, obey, proposed, source_event, train_until_nan


def test_a_run_is_registered_once_and_resumed_later(http: TestClient) -> None:
    assert Trainer(http, config={"lr": 0.1}).registered.status_code == 201
    assert Trainer(http).registered.status_code == 200
    (run,) = http.get(f"{API}/runs").json()
    assert (run["id"], run["state"], run["config"]) == ("r1", "running", {"lr": 0.1})
    assert run["policy"]["mode"] == "auto"
    assert not {"pk", "revision"} & set(run)  # the store's own


def test_a_report_is_stored_and_counted_once(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    segment = trainer.open("a")
    first = trainer.report(segment, [0, 1, 2], {"loss": [3.0, 2.0, 1.0]})
    again = trainer.report(segment, [0, 1, 2, 3], {"loss": [3.0, 2.0, 1.0, 0.5]})
    assert (first["accepted"], first["duplicates"]) == (3, 0)
    assert (again["accepted"], again["duplicates"]) == (1, 3)
    assert trainer.get("/series", metric="loss")["last"] == [3.0, 2.0, 1.0, 0.5]


def test_the_cost_of_each_rewind_is_its_steps_its_tokens_and_its_time(http: TestClient) -> None:
    trainer = Trainer(http)
    tokens = [1000.0 * (step + 1) for step in range(100)]
    trainer.report(trainer.open("a"), range(100), {"loss": [1.0] * 100, "tokens": tokens})
    segment = trainer.open("b", 80, "rewind", opened_at=NOW + 120.0)
    trainer.report(segment, [80, 81], {"loss": [1.0, 1.0]}, times=[NOW + 130.0, NOW + 131.0])
    cost: dict[str, Any] = {"steps": 20, "tokens": 20_000.0, "seconds": 50.0}
    once: dict[str, Any] = {"segment": 1, "reason": "rewind", "fork_step": 80, "incident": None, **cost}
    times = {"first_done_at": NOW + 80.0, "done_again_at": NOW + 130.0}
    assert trainer.get("/costs") == {**cost, "rewinds": [once | times]}
    Trainer(http, "steady")
    assert http.get(f"{API}/runs/steady/costs").json() == {
        "steps": 0, "tokens": 0, "seconds": 0, "rewinds": [],
    }  # fmt: skip
    assert http.get(f"{API}/runs/nope/costs").status_code == 404


def test_the_goodput_of_a_run_is_the_share_of_its_time_that_trained_the_model(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine, clock=lambda: NOW + 139.0) as http:
        trainer = Trainer(http)
        trainer.report(trainer.open("a"), range(100), {"loss": [1.0] * 100})
        trainer.report(trainer.open("b", 80, "rewind", opened_at=NOW + 120.0), range(80, 90), {"loss": [1.0] * 10})
        trainer.report(1, range(90, 100), {"loss": [1.0] * 10}, times=[NOW + step + 40 for step in range(90, 100)])
        shown = trainer.get("/goodput")
        assert http.get(f"{API}/runs/unknown/goodput").status_code == 404
    assert shown["total_seconds"] == sum(shown["seconds"].values()) == 139.0
    assert shown["seconds"]["rewind"] > 0
    assert shown["goodput"] == shown["seconds"]["training"] / 139.0


def test_a_resume_gets_its_first_step_with_its_first_report(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(10), {"loss": [1.0] * 10})
    segment = trainer.open("b", None, "resume")
    trainer.report(segment, [8, 9], {"loss": [1.0, 1.0]})
    assert [(one["fork_step"], one["parent"]) for one in trainer.get()["segments"]] == [(0, None), (8, 0)]


numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers, min_size=1, max_size=8))
def test_every_number_survives_the_way_through_the_collector(http: TestClient, values: list[float | None]) -> None:
    http.delete(f"{API}/runs/r1")
    trainer = Trainer(http)
    segment = trainer.open("a")
    for step, value in enumerate(values):
        trainer.report(segment, [step], {"loss": [value]})
        newest = trainer.get()["newest_step"]["metrics"].get("loss")
        decoded = decode_number(newest)
        assert decoded == value or (
            value is not None and decoded is not None and math.isnan(decoded) and math.isnan(value)
        )


def test_declared_events_are_stored_once(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    event = {"key": "e1", "step": 1, "time": NOW, "kind": "learning_rate", "details": {"value": 0.1}}
    for _ in range(2):
        trainer.report(segment, [0, 1, 2], {"loss": [1.0] * 3}, events=[event])
    assert [one["kind"] for one in trainer.get()["events"]] == ["learning_rate"]


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


def test_a_rollback_keeps_both_lines_and_marks_the_live_one(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(150), {"loss": [1.0] * 150})
    segment = trainer.open("b", 100, "rewind")
    trainer.report(segment, range(100, 200), {"loss": [2.0] * 100})
    assert trainer.get("/series", metric="loss")["last"] == [1.0] * 100 + [2.0] * 100
    assert trainer.get("/series", metric="loss", segment=0)["last"] == [1.0] * 150
    run = trainer.get()
    assert [(one["parent"], one["live_from"], one["live_to"]) for one in run["segments"]] == [
        (None, 0, 100),
        (0, 100, None),
    ]
    assert (run["steps_consumed"], run["steps_effective"]) == (250, 200)
    again = trainer.report(0, [100, 150], {"loss": [7.0, 7.0]})  # a spool that comes late: 100 is known, 150 is not
    assert (again["accepted"], again["duplicates"]) == (1, 1)
    assert trainer.get("/series", metric="loss", segment=0)["last"] == [1.0] * 150 + [7.0]
    assert trainer.get("/series", metric="loss")["last"] == [1.0] * 100 + [2.0] * 100
    assert trainer.get()["steps_effective"] == 200


def test_a_run_says_how_its_rows_are_made(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, [0, 10], {"loss": [1.0, 1.0]})
    assert trainer.get()["source"] | {"clock": "steps"} == trainer.get()["source"]
    assert trainer.get()["source"]["sentences"] == []
    for key, stride in (("a", 5), ("b", 10)):
        trainer.report(segment, [], {}, events=[source_event(key, 20, SourceFacts(stride=stride))])
    source = trainer.get()["source"]
    assert (source["stride"], source["sentences"]) == (10, SourceFacts(stride=10).describe())


def test_an_event_with_other_details_breaks_no_run(http: TestClient) -> None:
    trainer = Trainer(http)
    event = source_event("a", 0, SourceFacts()) | {"details": {"stride": "ten", "smoothing": 10**400, "clock": [1]}}
    trainer.report(trainer.open("a"), [0], {"loss": [1.0]}, events=[event])
    assert trainer.get()["source"]["sentences"] == []
