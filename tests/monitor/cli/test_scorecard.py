"""python -m monitor scorecard: a sentence and tables, or one JSON object."""

import json

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from monitor.__main__ import app
from tests.monitor.scorecard import store_run


@pytest.fixture(autouse=True)
def _runs(store: sa.Engine) -> None:
    with writing(store) as session:
        store_run(session, "spiky", policy={"mode": "observe"})
        store_run(session, "imported", project="llama", capabilities=[], state=RunState.FAILED, end_step=None)
        store_run(session, "trusting", policy={"mode": "auto"})


def scorecard(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["scorecard", *arguments])


def test_it_prints_the_sentence_and_a_row_per_project_and_run() -> None:
    done = scorecard()
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "In auto it would have rolled back 2 times in 2 runs" in text
    assert "At 1 of 2 actions nobody acted, and the loss came back by itself" in text
    assert "1 run in auto is not scored" in text
    for name in ("gpt", "llama", "all", "spiky", "imported", "only reports"):
        assert name in text


def test_json_has_the_same_as_the_api() -> None:
    card = json.loads(scorecard("--project", "llama", "--json").output)
    assert [run["id"] for run in card["runs"]] == ["imported"]
    assert card["runs"][0]["sites"][0]["ending"] == "died"
    assert card["totals"]["gpu_hours"] > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--run", "gone"), "the store has no run 'gone'; the dashboard lists all runs"),
        (("--run", "spiky", "--project", "llama"), "the store has no run 'spiky' in this project and time"),
        (("--since", "yesterday"), "does not match the format"),
    ],
)
def test_bad_input_gets_one_sentence(arguments: tuple[str, ...], text: str) -> None:
    done = scorecard(*arguments)
    assert done.exit_code == 2
    assert text in " ".join(done.stderr.replace("│", " ").split())
