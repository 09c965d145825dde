import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import app


def test_a_sweep_prints_json_and_writes_its_plot(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["lab", "--gradients", "--json", "--plot", str(tmp_path / "plot.svg")])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(row for row in rows if row["probability"] == 0.001)["cross_entropy"] == pytest.approx(0.999)
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--unstable", "--scaling"], "--unstable runs alone: leave out --scaling."),
        (["drill", "--gradients"], "--gradients runs alone: leave out drill."),
        (["--scaling", "--steps", "3"], "--steps cannot be used with --scaling"),
        (["--temperature", "--plot", "a.svg"], "--plot a.svg cannot be used here: the lab has no plot of temperature."),
        (["--gradients", "--plot", "/nowhere/at/all.svg"], "The plot cannot be written to /nowhere/at/all.svg"),
        (["--scaling", "--plot", "/nowhere/at/all.svg", "--set", "x=1"], "The plot cannot be written to /nowhere/at"),
        (["--gradients", "--plot", "/"], "The plot cannot be written to /: choose another file with --plot."),
        (["--gradients", "--set", "seed=2"], "--set seed=2 cannot be used in the lab: give --seed"),
        (
            ["--temperature", "--steps", "1", "--set", " seed = 2"],
            "--set  seed = 2 cannot be used in the lab: give --seed",
        ),
        (["drill", "--set", "steps=2"], "--set steps=2 cannot be used in the lab: give --steps."),
        (["drill", "--set", "name=a"], "--set name=a cannot be used in the lab: runs are compared by the names"),
        (["--gradients", "--steps", "2"], "--gradients trains nothing: leave out --set, --data, --seeds and --steps."),
    ],
)
def test_what_cannot_be_done_is_one_sentence_with_exit_code_2(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["lab", *arguments])
    assert done.exit_code == 2
    assert done.stderr.startswith(sentence)
