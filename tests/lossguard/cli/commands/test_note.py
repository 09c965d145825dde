from io import StringIO

import pytest

from lossguard import Client
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained


def test_a_note_is_written_at_a_step_or_at_the_newest_one(collector_client: Client, cli: Cli) -> None:
    run = trained(collector_client, "r")
    assert cli("note", "r", "lr was too high", "--step", "12", "--yes") == "noted at step 12 of r\n"
    noted = cli.json("note", "r", " look ")
    assert noted == {"run": "r", "id": noted["id"], "step": 19, "text": "look"}
    assert [(note["step"], note["text"]) for note in run.get("/notes")] == [(12, "lr was too high"), (19, "look")]


def test_a_note_or_a_policy_is_not_written_without_a_yes(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())
    run = trained(collector_client, "r")
    before = run.get("/policy")
    for arguments in (["note", "r", "look"], ["policy", "r", "set", "mode=auto"], ["policy", "r", "unset", "mode"]):
        assert "nothing was changed" in cli.fails(1, *arguments)
    assert (run.get("/notes"), run.get("/policy")) == ([], before)


@pytest.mark.parametrize(
    ("arguments", "sentence"), [([" "], "the note is empty"), (["x", "--step", "-1"], "--step -1")]
)
def test_a_note_without_words_or_with_a_wrong_step_is_not_sent(arguments: list[str], sentence: str, cli: Cli) -> None:
    assert sentence in cli.fails(2, "note", "r", *arguments, "--url", "http://127.0.0.1:1")
