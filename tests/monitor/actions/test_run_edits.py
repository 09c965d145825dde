"""People rename, tag, note and archive runs, and their names are in the audit trail."""

from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from db.records.access import Scope
from lossguard.vocabulary.protocol import API, PERSON_HEADER
from tests.monitor.client import TestClient, Trainer
from tests.monitor.tokens import create_token


def edit(http: TestClient, run_id: str = "r1", /, **body: Any) -> dict[str, Any]:
    answer = http.patch(f"{API}/runs/{run_id}", json=body)
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
    Trainer(http, name="a")
    assert http.patch(f"{API}/runs/r1", json=body).status_code == 422
    assert http.patch(f"{API}/runs/nobody", json={"name": "b"}).status_code == 404
    assert Trainer(http).get()["name"] == "a"


def who(http: TestClient, token: str, person: str) -> str:
    """The author of an edit with this token in the name of this person."""
    headers = {"authorization": f"Bearer {token}", PERSON_HEADER: person}
    answer = http.patch(f"{API}/runs/r1", json={"note": person}, headers=headers)
    assert answer.status_code == 200, answer.text
    author: str = http.get(f"{API}/audit", headers=headers).json()[0]["who"]
    return author


def test_the_author_of_an_action_is_the_person_and_the_token_that_acted(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    Trainer(http)
    token = create_token(sqlite_engine, "dashboard", Scope.OPERATE)
    assert (
        who(http, token, quote("Ada L\u00f6w <ada@example.org>")) == "Ada L\u00f6w <ada@example.org> (token dashboard)"
    )
    for bad in ("%ff", quote("a\nb"), "%20", "a" * 161):
        headers = {"authorization": f"Bearer {token}", PERSON_HEADER: bad}
        answer = http.patch(f"{API}/runs/r1", json={"note": "x"}, headers=headers)
        assert (answer.status_code, "printable characters" in answer.json()["detail"]) == (422, True)


def test_a_token_that_may_only_read_or_report_speaks_for_nobody(http: TestClient, sqlite_engine: sa.Engine) -> None:
    token = create_token(sqlite_engine, "viewer", Scope.READ)
    headers = {"authorization": f"Bearer {token}", PERSON_HEADER: "%ff"}
    assert http.get(f"{API}/runs", headers=headers).status_code == 200
