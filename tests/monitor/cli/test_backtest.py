"""python -m monitor backtest: one JSON object a line, or a table."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from monitor.backtesting.backtest import backtest_file
from monitor.cli.backtest import table
from tests.monitor.backtesting.curve_files import spiked
from tests.monitor.cli.command import monitor
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan


def test_the_table_names_file_and_action(tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table([backtest_file(spiked(tmp_path)), {"file": "quiet.csv", "steps": 5, "incidents": []}]))
    text = console.export_text()
    assert "curve.csv" in text
    assert "rewind to 300, skip batches 399 to 471" in text
    assert "none in 5 rows" in text


def curve_in(folder: Path, *last: str) -> Path:
    """A file of 300 quiet steps, and these rows."""
    rows = [f"{step},{3.0 + 0.01 * (step % 7)}" for step in range(300)]
    (folder / "curve.csv").write_text("\n".join(["step,loss", *rows, *last]))
    return folder / "curve.csv"


@pytest.mark.slow(4)
def test_backtest_prints_one_json_object_a_line(tmp_path: Path) -> None:
    curve = curve_in(tmp_path, "300,nan", "301,nan")
    done = monitor("backtest", str(curve), str(curve), "--json")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == second
    assert first["steps"] == 302
    (incident,) = first["incidents"]
    assert (incident["kind"], incident["detected_step"]) == ("nonfinite", 300)
    assert incident["action"]["kind"] == "rollback"
    assert set(incident) >= {
        *("kind", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome", "action")
    }


@pytest.mark.slow(4)
def test_backtest_of_a_stored_run_judges_its_live_line(http: TestClient, tmp_path: Path) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    losses = [*noise(3, 150), None, math.inf, *noise(4, 148)]
    trainer.report(obey(trainer, order), range(200, 500), {"loss": losses})
    store = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/lossguard.db"}
    result = json.loads(monitor("backtest", "--run", "r1", "--json", **store).stdout)
    (incident,) = result["incidents"]
    assert (result["file"], result["steps"]) == ("r1", 500)
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 351, 351)


@pytest.mark.slow(4)
def test_backtest_takes_its_parameters_and_compares_with_published_rules(tmp_path: Path) -> None:
    curve = curve_in(tmp_path, "300,nan")
    options = [part for value in ("name=palm", "min_depth=250", "false_alarms_per_10k=2") for part in ("--set", value)]
    done = monitor("backtest", str(curve), "--json", *options)
    assert json.loads(done.stdout)["incidents"][0]["action"]["rewind_to"] == 0
    done = monitor("backtest", str(curve), "--compare", COLUMNS="200")
    assert "trainscope" in done.stdout
