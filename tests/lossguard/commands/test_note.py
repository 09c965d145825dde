import json
from typing import Any

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.commands.small_runs import trained

RUN = {"id": "r", "state": "running", "newest_step": {"step": 19}, "interventions": []}


def answer(method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return (201, {"id": 7}) if path.endswith("/runs/r/notes") and method == "POST" else (200, RUN)


def test_a_note_is_sent_to_a_step_or_to_the_newest_one(
    collector: FakeCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.fault = answer
    assert main(["note", "r", "lr was too high", "--step", "12", "--url", collector.url]) == 0
    assert capsys.readouterr().out == "noted at step 12 of r\n"
    assert collector.requests[-1][2] == {"step": 12, "text": "lr was too high"}
    assert main(["note", "r", "look", "--json", "--url", collector.url]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "r", "id": 7, "step": 19, "text": "look"}
    assert collector.requests[-1][2] == {"step": None, "text": "look"}


def test_a_note_reaches_the_collector(collector_client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(collector_client, "real")
    assert main(["note", "real", "the data changed here"]) == 0
    assert capsys.readouterr().out == "noted at step 19 of real\n"
    (note,) = run.get("/notes")
    assert (note["step"], note["text"]) == (19, "the data changed here")


@pytest.mark.parametrize(
    ("arguments", "sentence"), [([" "], "the note is empty"), (["x", "--step", "-1"], "--step -1")]
)
def test_a_note_without_words_or_with_a_wrong_step_is_not_sent(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["note", "r", *arguments, "--url", "http://127.0.0.1:1"]) == 2
    assert sentence in capsys.readouterr().err
