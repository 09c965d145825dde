import json

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import trained


def test_a_note_is_written_at_a_step_or_at_the_newest_one(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(collector_client, "r")
    assert main(["note", "r", "lr was too high", "--step", "12"]) == 0
    assert capsys.readouterr().out == "noted at step 12 of r\n"
    assert main(["note", "r", " look ", "--json"]) == 0
    noted = json.loads(capsys.readouterr().out)
    assert noted == {"run": "r", "id": noted["id"], "step": 19, "text": "look"}
    assert [(note["step"], note["text"]) for note in run.get("/notes")] == [(12, "lr was too high"), (19, "look")]


@pytest.mark.parametrize(
    ("arguments", "sentence"), [([" "], "the note is empty"), (["x", "--step", "-1"], "--step -1")]
)
def test_a_note_without_words_or_with_a_wrong_step_is_not_sent(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["note", "r", *arguments, "--url", "http://127.0.0.1:1"]) == 2
    assert sentence in capsys.readouterr().err
