import pytest

from lossguard import Client
from lossguard.cli.commands.completion import candidates
from tests.lossguard.cli.small_runs import SmallRun, trained


def test_what_may_stand_next_is_offered(collector_client: Client) -> None:
    trained(collector_client, "gpt-1", 1, name="base")
    SmallRun(collector_client, "gpt-2", name="$(touch x)", project="a b")
    SmallRun(collector_client, "x-1", name="--yes", project="--json")
    for line, expected in (
        ("ro", ["rollback"]),
        ("show ", ["x-1", "gpt-2", "gpt-1", "base", "latest"]),
        ("show gpt", ["gpt-2", "gpt-1"]),
        ("show --json b", ["base"]),
        ("tail --interval 2 l", ["latest"]),
        ("runs --st", ["--state"]),
        ("runs --state fi", ["finished"]),
        ("runs --project ", ["gpt"]),
        ("series gpt-1 lo", ["loss"]),
        ("policy ba", ["base"]),
        ("policy gpt-1 ", ["show", "set", "unset"]),
        ("policy --collector u", ["unset"]),
        ("export gpt-1 --format ", ["parquet", "csv"]),
        ("completion z", ["zsh"]),
        ("launch -- python ", []),
        ("nonsense x", []),
        ("sync ", []),
    ):
        assert candidates(line.split(" ")) == expected, line
    assert len(candidates([""])) == len(candidates([])) > 15


def test_without_a_collector_commands_and_options_are_offered_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:1")
    assert candidates(["show", ""]) == ["latest"]
    assert candidates(["show", "--js"]) == ["--json"]
