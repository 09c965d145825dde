"""Notes at steps through the API: written, listed and deleted, with their authors, in the audit trail."""

from typing import Any

import pytest

from lossguard.vocabulary.protocol import API, MAX_STEP_NOTE
from monitor.actions import step_notes
from tests.monitor.client import NOW, TestClient, Trainer

NOTES = f"{API}/runs/r1/notes"


def trained(http: TestClient, steps: int = 20) -> Trainer:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(steps), {"loss": [1.0] * steps})
    return trainer


def note(http: TestClient, text: str, **body: Any) -> dict[str, Any]:
    answer = http.post(NOTES, json={"text": text, **body})
    assert answer.status_code == 201, answer.text
    written: dict[str, Any] = answer.json()
    return written


def test_a_note_is_written_at_a_step_or_at_the_newest_and_listed_by_step(http: TestClient) -> None:
    trained(http)
    newest = note(http, " the data were shuffled ")
    named = note(http, "the node was replaced", step=7)
    assert newest == {
        "id": newest["id"], "step": 19, "text": "the data were shuffled", "author": "anybody", "created_at": NOW,
    }  # fmt: skip
    assert http.get(NOTES).json() == [named, newest]


def test_before_the_first_step_a_note_is_at_step_0(http: TestClient) -> None:
    Trainer(http)
    assert note(http, "a new corpus", step=None)["step"] == 0


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
    trail = http.get(f"{API}/audit").json()
    facts = {"note": written["id"], "step": 3, "text": "wrong run"}
    assert [(each["action"], each["details"]) for each in trail] == [
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


def test_an_unknown_run_has_no_notes_and_takes_none(http: TestClient) -> None:
    assert http.get(NOTES).status_code == 404
    assert http.post(NOTES, json={"text": "a"}).status_code == 404


def test_a_run_has_so_many_notes_at_most(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_notes, "MAX_STEP_NOTES", 1)
    trained(http)
    note(http, "first")
    answer = http.post(NOTES, json={"text": "second"})
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "the run has 1 notes, which is the limit; delete some",
    )
