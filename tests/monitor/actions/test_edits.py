"""People and replays write to a run: name, tags, notes, verdicts; the audit trail keeps who did."""

import math
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from db import frames, queries
from db.records.access import Scope
from db.store.engine import reading
from lossguard.vocabulary.protocol import API, MAX_STEP_NOTE, PERSON_HEADER
from lossguard.vocabulary.states import Cause
from monitor.actions import edits
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.tokens import TokenClient, create_token
from tests.monitor.verdict import VERDICT

NOTES = f"{API}/runs/r1/notes"


def edit(http: TestClient, **body: Any) -> dict[str, Any]:
    answer = http.patch(f"{API}/runs/r1", json=body)
    assert answer.status_code == 200, answer.text
    run: dict[str, Any] = answer.json()
    return run


def test_only_what_is_named_is_changed_and_the_audit_trail_keeps_old_and_new(http: TestClient) -> None:
    Trainer(http, name="first try", config={"tags": ["old"]})
    assert edit(http, tags=["good", "paper"], note="lr was too high")["name"] == "first try"
    run = edit(http, name="baseline")
    assert (run["name"], run["tags"], run["note"]) == ("baseline", ["good", "paper"], "lr was too high")
    assert edit(http, note="")["note"] is None
    details = [each["details"] for each in http.get(f"{API}/audit").json()]
    assert details == [
        {"note": {"from": "lr was too high", "to": None}},
        {"name": {"from": "first try", "to": "baseline"}},
        {"tags": {"from": None, "to": ["good", "paper"]}, "note": {"from": None, "to": "lr was too high"}},
    ]


def test_a_run_is_archived_once_it_has_ended_and_comes_back_when_it_runs_again(http: TestClient) -> None:
    trainer = Trainer(http)
    assert http.patch(f"{API}/runs/r1", json={"archived": True}).status_code == 409
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": 1.0})
    first = edit(http, archived=True)["archived_at"]
    assert first is not None
    assert edit(http, archived=True)["archived_at"] == first
    assert edit(http, archived=False)["archived_at"] is None
    edit(http, archived=True)
    Trainer(http)
    assert trainer.get()["archived_at"] is None


@pytest.mark.parametrize(
    "body", [{}, {"name": None}, {"name": ""}, {"tags": [""]}, {"tags": ["a"] * 33}, {"nmae": "x"}]
)
def test_a_malformed_edit_is_refused(http: TestClient, body: dict[str, Any]) -> None:
    trainer = Trainer(http, name="a")
    assert http.patch(f"{API}/runs/r1", json=body).status_code == 422
    assert http.patch(f"{API}/runs/nobody", json={"name": "b"}).status_code == 404
    assert trainer.get()["name"] == "a"


def test_the_author_of_an_action_is_the_person_and_the_token_that_acted(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    Trainer(http)
    token = f"Bearer {create_token(sqlite_engine, 'dashboard', Scope.OPERATE)}"

    def act(person: str) -> Any:
        headers = {"authorization": token, PERSON_HEADER: person}
        return http.patch(f"{API}/runs/r1", json={"note": "x"}, headers=headers)

    ada = "Ada L\u00f6w <ada@example.org>"
    assert act(quote(ada)).status_code == 200
    trail = http.get(f"{API}/audit", headers={"authorization": token}).json()
    assert trail[0]["who"] == f"{ada} (token dashboard)"
    for bad in ("%ff", quote("a\nb"), "%20", "a" * 161):
        assert (act(bad).status_code, "printable characters" in act(bad).json()["detail"]) == (422, True)
    # One that may only read speaks for nobody.
    reader = {"authorization": f"Bearer {create_token(sqlite_engine, 'viewer', Scope.READ)}", PERSON_HEADER: "%ff"}
    assert http.get(f"{API}/runs", headers=reader).status_code == 200


def trained(http: TestClient) -> Trainer:
    """A run of 20 steps."""
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(20), {"loss": [1.0] * 20})
    return trainer


def note(http: TestClient, text: str, **body: Any) -> dict[str, Any]:
    answer = http.post(NOTES, json={"text": text, **body})
    assert answer.status_code == 201, answer.text
    written: dict[str, Any] = answer.json()
    return written


def test_a_note_is_written_at_a_step_or_at_the_newest_and_listed_by_step(http: TestClient) -> None:
    assert http.get(NOTES).status_code == http.post(NOTES, json={"text": "a"}).status_code == 404
    trainer = Trainer(http)
    first = note(http, "a new corpus", step=None)
    assert first["step"] == 0
    trainer.report(trainer.open("a"), range(20), {"loss": [1.0] * 20})
    newest = note(http, " the data were shuffled ")
    named = note(http, "the node was replaced", step=7)
    shown = {"step": 19, "text": "the data were shuffled", "author": "anybody", "created_at": NOW}
    assert newest == {"id": newest["id"]} | shown
    assert http.get(NOTES).json() == [first, named, newest]


def test_a_note_stays_at_its_step_when_the_step_is_discarded(http: TestClient) -> None:
    trainer = trained(http)
    note(http, "here it began", step=15)
    trainer.report(trainer.open("b", 10, "rollback"), [10, 11], {"loss": [1.0] * 2})
    assert [each["step"] for each in http.get(NOTES).json()] == [15]
    assert note(http, "a discarded step can be noted too", step=18)["step"] == 18
    assert note(http, "the newest of the live line")["step"] == 11


def test_a_deleted_note_is_gone_and_the_audit_trail_keeps_what_it_said(http: TestClient) -> None:
    trained(http)
    written = note(http, "wrong run", step=3)
    Trainer(http, "r2")
    assert http.delete(f"{API}/runs/r2/notes/{written['id']}").status_code == 404
    assert http.delete(f"{NOTES}/{written['id']}").status_code == 204
    assert http.delete(f"{NOTES}/{written['id']}").json()["detail"] == f"there is no note {written['id']}"
    assert http.get(NOTES).json() == []
    facts = {"note": written["id"], "step": 3, "text": "wrong run"}
    assert [(each["action"], each["details"]) for each in http.get(f"{API}/audit").json()] == [
        ("delete note", facts | {"author": "anybody"}),
        ("note", facts),
    ]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "body.text: Field required"),
        ({"text": "  "}, "body.text: String should have at least 1 character"),
        ({"text": "a" * (MAX_STEP_NOTE + 1)}, "body.text: String should have at most 2000 characters"),
        ({"text": "a\x00"}, "body.text: Value error, text must not hold NUL or lone surrogates"),
        ({"text": "a", "step": -1}, "body.step: Input should be greater than or equal to 0"),
        ({"text": "a", "step": 20}, "step 20 has not been reported; name one from 0 to 19, or none for the newest"),
        ({"text": "a", "at": 3}, "body.at: Extra inputs are not permitted"),
    ],
)
def test_a_malformed_note_is_refused_with_a_sentence(http: TestClient, body: dict[str, Any], sentence: str) -> None:
    trained(http)
    answer = http.post(NOTES, json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)
    assert http.get(NOTES).json() == []


def test_a_run_has_so_many_notes_at_most(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "MAX_STEP_NOTES", 1)
    trained(http)
    note(http, "first")
    answer = http.post(NOTES, json={"text": "second"})
    detail = "the run has 1 notes, which is the limit; delete some"
    assert (answer.status_code, answer.json()["detail"]) == (409, detail)


def run_with_incident(http: TestClient) -> Trainer:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(40), {"loss": [2.0] * 39 + [math.nan]})
    return trainer


def judge(http: TestClient, change: dict[str, Any] | None = None, number: int = 1) -> Any:
    return http.put(f"{API}/runs/r1/incidents/{number}/verdict", json=VERDICT | (change or {}))


def test_an_incident_has_no_verdict_until_it_was_replayed_and_the_newest_one_after(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = run_with_incident(http)
    assert [incident["verdict"] for incident in trainer.get("/incidents")] == [None]
    for cause in (*Cause, VERDICT["cause"]):
        assert judge(http, {"cause": cause}).json()["verdict"]["cause"] == cause
    (incident,) = trainer.get("/incidents")
    assert incident == trainer.get("/incidents/1")
    assert (incident["kind"], incident["verdict"]) == ("nonfinite", VERDICT)
    trainer.report(0, range(40, 80), {"loss": [2.0] * 40})
    assert trainer.get("/incidents/1")["verdict"] == VERDICT, "later reports leave it"
    with reading(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        assert frames.incidents(session, run=run)["verdict"].loc[1]["cause"] == "data"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cause": "gremlins"}, "cause"),
        ({"sentence": ""}, "sentence"),
        ({"sentence": "x" * 1001}, "sentence"),
        ({"more": 1}, "more"),
        ({"excerpts": [VERDICT["excerpts"][0] | {"inputs": "x" * 2001}]}, "inputs"),
        ({"excerpts": [VERDICT["excerpts"][0] | {"inputs": "\x00"}]}, "NUL"),
        ({"excerpts": VERDICT["excerpts"] * 17}, "excerpts"),
        ({"culprits": [{"batch_from": -1, "batch_to": 3}]}, "batch_from"),
        ({"evidence": VERDICT["evidence"] | {"recorded": [2.0] * 2001}}, "recorded"),
        ({"evidence": VERDICT["evidence"] | {"recorded": ["2.0"]}}, "recorded"),
    ],
)
def test_a_malformed_verdict_is_refused_and_changes_nothing(
    http: TestClient, change: dict[str, Any], words: str
) -> None:
    trainer = run_with_incident(http)
    answer = judge(http, change)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text
    assert trainer.get("/incidents")[0]["verdict"] is None


def test_an_unknown_incident_is_not_found(http: TestClient) -> None:
    run_with_incident(http)
    for answer in (judge(http, number=7), http.get(f"{API}/runs/r1/incidents/7")):
        assert (answer.status_code, answer.json()["detail"]) == (404, "there is no incident 7")
    assert http.get(f"{API}/runs/nobody/incidents/1").json()["detail"] == "there is no run 'nobody'"


def test_a_trainers_token_may_write_a_verdict_and_the_audit_trail_keeps_who_did(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    run_with_incident(http)
    for name, scope, status in (("reader", Scope.READ, 403), ("trainers", Scope.REPORT, 200)):
        client = TokenClient(http, create_token(sqlite_engine, name, scope))
        assert client.status("PUT", "/runs/r1/incidents/1/verdict", VERDICT) == status
    ada = TokenClient(http, create_token(sqlite_engine, "ada", Scope.OPERATE))
    (line,) = http.get(f"{API}/audit?run=r1", headers=ada.headers).json()
    assert (line["who"], line["action"], line["details"]["cause"]) == ("trainers", "verdict", "data")
    assert line["details"]["culprits"] == [{"batch_from": 7, "batch_to": 9}]
