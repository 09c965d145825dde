import json
from typing import Any

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import SmallRun, trained
from tests.lossguard.collectors import FakeCollector


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
    assert "there are more: --limit 2" in capsys.readouterr().out


def test_runs_are_sorted_and_limited_to_those_that_reported_lately(
    collector_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("cab"):
        SmallRun(collector_client, name, started_at=1.0 + number)
    for options, listed in (
        (["--sort", "name"], ["a", "b", "c"]),
        (["--sort", "name", "--limit", "2"], ["a", "b"]),
        (["--since", "1h"], ["b", "a", "c"]),
        (["--since", "0s"], []),
    ):
        assert main(["runs", "--json", *options]) == 0
        assert [run["id"] for run in json.loads(capsys.readouterr().out)] == listed
    assert main(["runs", "--since", "yesterday"]) == 2
    assert "--since yesterday must be a whole number and a unit" in capsys.readouterr().err


def test_a_collector_of_an_earlier_release_sends_all_runs_which_are_filtered_here(
    collector: FakeCollector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known: dict[str, Any] = {
        "project": "gpt",
        "name": None,
        "note": None,
        "step": 3,
        "metrics": {"loss": 2.0},
        "archived_at": None,
    }
    known |= {"open_incidents": 0, "waiting": 0, "config": {"lr": 1e-3}, "last_report_at": 1.0}
    runs = [
        known | {"id": "new", "state": "running", "tags": ["a"]},
        known | {"id": "gone", "state": "running", "tags": ["a"], "archived_at": 1.0},
        known | {"id": "old", "state": "finished", "tags": []},
    ]
    collector.accepts = frozenset()
    collector.fault = lambda method, path, body: (200, runs)  # type: ignore[assignment, return-value]
    monkeypatch.setenv("LOSSGUARD_URL", collector.url)
    for options, listed in (
        (["--state", "running"], ["new"]),
        (["--tag", "a", "--archived"], ["new", "gone"]),
        (["--search", "lr<1 loss=2 state:finished"], ["old"]),
        (["--since", "1h"], []),
    ):
        assert main(["runs", "--json", *options]) == 0
        assert [run["id"] for run in json.loads(capsys.readouterr().out)] == listed


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
