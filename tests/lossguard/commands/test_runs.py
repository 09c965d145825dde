import json

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.commands.small_runs import SmallRun, trained


def test_runs_are_listed_with_where_they_stand(collector_client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    trained(collector_client, "old", config={"tags": ["paper"]}, name="evil \x1b[2J", started_at=1.0).finish()
    SmallRun(collector_client, "new", project="other")
    assert main(["runs"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["STATE", "NAME", "ID", "PROJECT", "STEP", "LOSS", "OPEN", "WAITING", "LAST", "REPORT"]
    assert first.split()[:6] == ["running", "-", "new", "other", "-", "-"]
    assert "evil  [2J" in second
    assert second.split()[-7:-3] == ["19", "2.81", "0", "0"]
    for options, listed in (
        (["--project", "gpt"], ["old"]),
        (["--state", "running"], ["new"]),
        (["--tag", "paper"], ["old"]),
        (["--tag", "paper", "--tag", "x"], []),
        (["--search", "loss<2.9 paper"], ["old"]),
        (["--limit", "1"], ["new"]),
    ):
        assert main(["runs", "--json", *options]) == 0
        assert [run["id"] for run in json.loads(capsys.readouterr().out)] == listed
    assert main(["runs", "--limit", "1"]) == 0
    assert "1 more: --limit 2" in capsys.readouterr().out


def test_archived_runs_are_listed_when_they_are_asked_for(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(collector_client, "old").finish()
    collector_client.request("PATCH", "/runs/old", {"archived": True})
    for options, listed in (([], []), (["--archived"], ["old"])):
        assert main(["runs", "--json", *options]) == 0
        assert [run["id"] for run in json.loads(capsys.readouterr().out)] == listed


def test_no_run_is_said_in_words_and_a_limit_below_one_is_refused(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "there are no runs\n"
    trained(collector_client, "r", 2)
    assert main(["runs", "--tag", "x"]) == 0
    assert main(["runs", "--project", "other"]) == 0
    assert capsys.readouterr().out == "no run fits\n" * 2
    assert main(["runs", "--limit", "0"]) == 2
    assert capsys.readouterr().err == "lossguard: --limit 0 must be a number of runs, from 1\n"
