import json

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import trained


def test_a_series_is_a_sparkline_or_its_buckets(
    collector_client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    trained(collector_client, "r", 100).report(100, [float("nan"), 9.0])
    assert main(["series", "r", "loss"]) == 0
    head, line, figures = capsys.readouterr().out.splitlines()
    assert head == "loss  steps 0 to 101"
    assert (len(line), line[0], line[-1]) == (34, "▃", "✕")
    assert figures == "min 2.01  max 9  last 9  NaN or infinite at 1 step"
    assert main(["series", "r", "loss", "--from", "98", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert [bucket["first_step"] for bucket in shown["buckets"]] == [98, 99, 100, 101]
    assert (shown["run"], shown["metric"], shown["max"], shown["non_finite"]) == ("r", "loss", 9.0, 1)
    assert main(["series", "r", "loss", "--from", "500"]) == 0
    assert "no steps here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["los"], 3, "run r has no metric 'los'; it has: loss"),
        (["loss", "--from", "-1"], 2, "--from -1 must be a step, from 0"),
        (["loss", "--points", "0"], 2, "--points 0 must be from 1 to 20000"),
    ],
)
def test_a_wrong_argument_of_series_is_one_sentence(
    collector_client: Client, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    trained(collector_client, "r")
    assert main(["series", "r", *arguments]) == code
    assert sentence in capsys.readouterr().err
