"""GET /scorecard."""

import sqlalchemy as sa

from db.records.access import Scope, create_token
from db.store.engine import writing
from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise
from tests.monitor.scorecard import store_run


def test_the_card_of_all_runs_of_a_project_and_of_one_run(http: TestClient, sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        for run_id, project in (("a", "gpt"), ("b", "llama")):
            store_run(session, run_id, project=project, policy={"mode": "observe"})
    assert http.get(f"{API}/scorecard").json()["totals"]["runs"] == 2
    card = http.get(f"{API}/scorecard?project=llama").json()
    assert list(card["projects"]) == ["llama"]
    assert card["sentence"].startswith("In auto it would have rolled back 1 time in 1 run")
    (run,) = http.get(f"{API}/scorecard?run=a").json()["runs"]
    assert run["sites"][0]["ending"] == "recovered"
    assert http.get(f"{API}/scorecard?since=4000000000").json()["runs"] == []


def test_bad_input_gets_one_sentence(http: TestClient) -> None:
    unknown = http.get(f"{API}/scorecard?run=gone")
    assert (unknown.status_code, "gone" in unknown.json()["detail"]) == (404, True)
    assert http.get(f"{API}/scorecard?since=yesterday").status_code == 422


def test_a_token_of_one_project_or_run_gets_its_own_card_only(http: TestClient, sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        for run_id, project in (("a", "gpt"), ("b", "llama"), ("c", "gpt")):
            store_run(session, run_id, project=project, policy={"mode": "observe"})
        options = {"scopes": [Scope.READ], "now": NOW}
        gpt = create_token(session, name="gpt", project="gpt", **options)[1]  # type: ignore[arg-type]
        own = create_token(session, name="own", project=None, run="b", **options)[1]  # type: ignore[arg-type]

    def runs(token: str, query: str = "") -> list[str]:
        answer = http.get(f"{API}/scorecard{query}", headers={"Authorization": f"Bearer {token}"})
        return sorted(run["id"] for run in answer.json()["runs"]) if answer.status_code == 200 else ["refused"]

    assert runs(gpt) == ["a", "c"]
    assert runs(gpt, "?project=llama") == []
    assert runs(gpt, "?run=b") == ["refused"]
    assert runs(own) == ["b"]
    assert runs(own, "?run=a") == ["refused"]


def test_a_spike_of_a_run_in_observe_mode_is_on_its_card(http: TestClient) -> None:
    """From reports to the card: the detection stores the proposal, the card reads it."""
    trainer = Trainer(http)
    assert http.put(f"{API}/runs/r1/policy", json={"mode": "observe"}).status_code == 200
    segment = trainer.open("a")
    losses = noise(1, 300)
    trainer.report(segment, range(300), {"loss": losses}, restorable_steps=CHECKPOINTS)
    assert trainer.report(segment, [300], {"loss": [float("nan")]})["orders"] == []
    trainer.report(segment, range(301, 600), {"loss": noise(2, 299)})
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": NOW + 600})
    (site,) = http.get(f"{API}/scorecard?run=r1").json()["runs"][0]["sites"]
    assert (site["kind"], site["action"]["decided_step"], site["action"]["is_estimated"]) == ("nonfinite", 300, False)
    assert site["action"]["rewind_to"] in CHECKPOINTS
    assert site["ending"] == "recovered"
