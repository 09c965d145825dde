from lossguard import Client
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import SmallRun, trained


def test_runs_are_listed_with_where_they_stand(collector_client: Client, cli: Cli) -> None:
    trained(collector_client, "old", config={"tags": ["paper"]}, name="evil \x1b[2J", started_at=1.0).finish()
    SmallRun(collector_client, "new", project="other")
    head, first, second = cli("runs").splitlines()
    assert head.split() == ["VERDICT", "NAME", "ID", "PROJECT", "STEP", "LOSS", "OPEN", "WAITING", "LAST", "REPORT"]
    assert first.split()[:6] == ["Healthy", "-", "new", "other", "-", "-"]
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
        assert [run["id"] for run in cli.json("runs", *options)] == listed
    assert "there are more: --limit 2" in cli("runs", "--limit", "1")


def test_runs_are_sorted_and_archived_ones_or_those_that_did_not_report_lately_left_out(
    collector_client: Client, cli: Cli
) -> None:
    for number, name in enumerate("xcab"):
        SmallRun(collector_client, name, started_at=1.0 + number)
    SmallRun(collector_client, "x", started_at=1.0).finish()
    collector_client.request("PATCH", "/runs/x", {"archived": True})
    for options, listed in (
        (["--sort", "name", "--archived"], ["a", "b", "c", "x"]),
        (["--sort", "name"], ["a", "b", "c"]),
        (["--sort", "name", "--limit", "2"], ["a", "b"]),
        (["--since", "1h"], ["b", "a", "c"]),
        (["--since", "0s"], []),
    ):
        assert [run["id"] for run in cli.json("runs", *options)] == listed
    assert "--since yesterday must be a whole number and a unit" in cli.fails(2, "runs", "--since", "yesterday")


def test_no_run_is_said_in_words_and_a_limit_below_one_is_refused(collector_client: Client, cli: Cli) -> None:
    assert cli("runs") == "there are no runs\n"
    trained(collector_client, "r", 2)
    assert cli("runs", "--tag", "x") == cli("runs", "--project", "other") == "no run fits\n"
    assert cli.fails(2, "runs", "--limit", "0") == "lossguard: --limit 0 must be a number of runs, from 1\n"
    unread = "lossguard: --search: loss>x: a number must follow >, not 'x'.\n"
    assert cli.fails(2, "runs", "--search", "loss>x") == unread
