import pytest

from lossguard import Client
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import SmallRun, trained


def test_a_series_is_a_sparkline_or_its_buckets_and_a_wrong_argument_one_sentence(
    collector_client: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    trained(collector_client, "r", 100).report(100, [float("nan"), 9.0])
    head, line, figures = cli("series", "r", "loss").splitlines()
    assert head == "loss  steps 0 to 101"
    assert (len(line), line[0], line[-1]) == (34, "▃", "✕")
    assert figures == "min 2.01  max 9  last 9  NaN or infinite at 1 step"
    (shown,) = cli.json("series", "r", "loss", "--from", "98")
    assert [bucket["first_step"] for bucket in shown["buckets"]] == [98, 99, 100, 101]
    assert (shown["run"], shown["metric"], shown["max"], shown["non_finite"]) == ("r", "loss", 9.0, 1)
    run = SmallRun(collector_client, "r")
    run.open(50, "rewind")
    run.report(50, [2.5, 2.5])
    assert cli("series", "r", "loss").splitlines()[-1] == "discarded: steps 50 to 101  min 2.01  max 9"
    assert "discarded" not in cli("series", "r", "loss", "--to", "40")
    run.open(0, "rewind")
    run.report(0, [3.0])
    assert cli("series", "r", "loss", "--to", "0").splitlines()[-1] == "discarded: steps 0 to 0  min 3  max 3"
    assert "no steps here" in cli("series", "r", "loss", "--from", "500")
    for arguments, code, sentence in (
        (["los"], 3, "run r has no metric 'los'; it has: loss"),
        (["loss", "--from", "-1"], 2, "--from -1 must be a step, from 0"),
        (["loss", "--points", "0"], 2, "--points 0 must be from 1 to 20000"),
    ):
        assert sentence in cli.fails(code, "series", "r", *arguments)
