"""Backtests of CSV files: the fixed output, and one sentence for every bad file."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from rich.console import Console

from monitor.app import create_app
from monitor.backtesting.backtest import CurveError, backtest_file, backtest_rows, read_curve
from monitor.cli.backtest import table
from monitor.detection import DetectionSettings, Mode, Policy, Rows
from monitor.settings import Settings
from tests.monitor.cli.command import monitor
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import noise, obey, train_until_nan


def written(folder: Path, text: str) -> Path:
    path = folder / "curve.csv"
    path.write_text(text)
    return path


def spiked(folder: Path) -> Path:
    random = np.random.default_rng(0)
    loss = 2.0 + 0.02 * random.standard_normal(600)
    loss[400:] += 1.5
    lines = [f"{step},{value:.5f}" for step, value in enumerate(loss)]
    return written(folder, "\n".join(["step,loss", *lines]))


def test_the_result_has_the_documented_fields(tmp_path: Path) -> None:
    path = spiked(tmp_path)
    result = json.loads(json.dumps(backtest_file(path)))
    assert (result["file"], result["steps"]) == (str(path), 600)
    (incident,) = result["incidents"]
    names = {"kind", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome", "action"}
    assert names <= set(incident)
    assert set(incident["action"]) == {"kind", "rewind_to", "skip_from", "skip_to"}
    assert (incident["onset_step"], incident["detected_step"]) == (400, 401)
    assert incident["action"] == {"kind": "rollback", "rewind_to": 300, "skip_from": 300, "skip_to": 500}


def test_the_peak_is_the_row_farthest_from_the_band(tmp_path: Path) -> None:
    path = spiked(tmp_path)
    rows = path.read_text().splitlines()
    rows[1 + 405] = "405,4.75"
    (incident,) = backtest_file(written(tmp_path, "\n".join(rows)))["incidents"]
    assert incident["peak_step"] == 405


def test_the_band_that_moves_on_does_not_move_the_peak() -> None:
    """Loss 138.8 at step 702 was called less of a peak than 132.2 at 706, where the level had fallen meanwhile."""
    random = np.random.default_rng(0)
    loss = 25.0 - 0.05 * np.arange(450) + 0.01 * random.standard_normal(450)
    loss[413:415], loss[416:418] = 138.8, 138.7
    (incident,) = backtest_rows(Rows.of(range(450), loss=loss))["incidents"]
    assert incident["peak_step"] == 413


def test_the_table_names_file_and_action(tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table([backtest_file(spiked(tmp_path)), {"file": "quiet.csv", "steps": 5, "incidents": []}]))
    text = console.export_text()
    assert "curve.csv" in text
    assert "rewind to 300, skip batches 300-499" in text
    assert "none in 5 rows" in text


def test_nan_is_a_value_and_an_empty_cell_is_not(tmp_path: Path) -> None:
    rows = read_curve(written(tmp_path, "step,loss,grad_norm\n0,2.0,\n1,nan,0.5\n2,inf,0.4\n"))
    assert rows.present["grad_norm"].tolist() == [False, True, True]
    assert rows.present["loss"].all()
    assert not np.isfinite(rows.metrics["loss"][1:]).any()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: the file is empty"),
        ("step,grad_norm\n1,2\n2,3\n", "line 1: no column loss"),
        ("loss\n1\n2\n", "line 1: no column step"),
        ("step,loss,loss\n1,2,3\n2,3,4\n", "line 1: column loss appears twice"),
        ("step,loss\n", "line 1: a curve needs at least two rows"),
        ("step,loss\n1,2.0\n", "line 2: a curve needs at least two rows"),
        ("step,loss\n1,2.0\n1,2.1\n", "line 3: step 1 is a duplicate"),
        ("step,loss\n5,2.0\n4,2.1\n", "line 3: step 4 is not above"),
        ("step,loss\n1,2.0\n2,much\n", "line 3: loss is 'much', not a number"),
        ("step,loss\n1,2.0\n2.5,2\n", "line 3: step is 2.5, not a whole number"),
        ("step,loss\n1,2.0\nnan,2\n", "line 3: step is nan, not a whole number"),
        ("step,loss\n1,2.0\n2\n", "line 3: the number of cells is 1, the number of columns 2"),
    ],
)
def test_a_bad_file_gets_one_sentence_with_file_and_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(CurveError) as raised:
        backtest_file(path)
    assert f"{path}, {sentence}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CurveError, match="cannot be read"):
        backtest_file(tmp_path / "nowhere.csv")


def test_a_spike_that_is_left_alone_says_why(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    loss = 2.0 + 0.02 * random.standard_normal(600)
    loss[400:] += 1.5 * np.exp(-np.arange(200) / 8)
    lines = [f"{step},{value:.5f}" for step, value in enumerate(loss)]
    incident = backtest_file(written(tmp_path, "\n".join(["step,loss", *lines])))["incidents"][0]
    assert incident["action"]["kind"] == "none"
    assert any(words.startswith("Nothing was done: the loss ") for words in incident["reasons"])


def test_proposals_of_a_backtest_never_use_up_the_budget(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    loss = 2.0 + 0.02 * random.standard_normal(2000)
    for at in range(300, 2000, 300):
        loss[at : at + 60] += 1.5
    lines = [f"{step},{value:.5f}" for step, value in enumerate(loss)]
    result = backtest_file(written(tmp_path, "\n".join(["step,loss", *lines])), policy=Policy(budget_per_run=2))
    actions = [incident["action"]["kind"] for incident in result["incidents"]]
    assert actions.count("rollback") == 6
    assert "hold" not in actions


def test_a_backtest_that_should_order_is_refused(tmp_path: Path) -> None:
    for mode in (Mode.OBSERVE, Mode.APPROVE):
        assert backtest_file(spiked(tmp_path), policy=Policy(mode=mode))["incidents"][0]["action"]["kind"] == "rollback"
    with pytest.raises(CurveError, match="mode=auto"):
        backtest_file(spiked(tmp_path), policy=Policy(mode=Mode.AUTO))


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="false_alarms_per_10k must be above 0"):
        DetectionSettings(false_alarms_per_10k=0)
    with pytest.raises(ValueError, match="unknown detection settings: speed"):
        DetectionSettings.from_dict({"speed": 1})


@pytest.mark.slow
def test_backtest_prints_one_json_object_a_line(tmp_path: Path) -> None:
    rows = [f"{step},{3.0 + 0.01 * (step % 7)}" for step in range(300)] + ["300,nan", "301,nan"]
    curve = tmp_path / "curve.csv"
    curve.write_text("step,loss\n" + "\n".join(rows))
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


@pytest.mark.slow
def test_backtest_of_a_stored_run_judges_its_live_line(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        trainer = Trainer(http)
        (order,) = train_until_nan(trainer)["orders"]
        losses = [*noise(3, 150), None, math.inf, *noise(4, 148)]
        trainer.report(obey(trainer, order), range(200, 500), {"loss": losses})
    store = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/lossguard.db"}
    result = json.loads(monitor("backtest", "--run", "r1", "--json", **store).stdout)
    (incident,) = result["incidents"]
    assert (result["file"], result["steps"]) == ("r1", 500)
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 351, 351)


@pytest.mark.slow
def test_backtest_takes_its_parameters_and_compares_with_published_rules(tmp_path: Path) -> None:
    rows = [f"{step},{3.0 + 0.01 * (step % 7)}" for step in range(300)] + ["300,nan"]
    curve = tmp_path / "curve.csv"
    curve.write_text("step,loss\n" + "\n".join(rows))
    done = monitor("backtest", str(curve), "--json", "--set", "min_depth=250", "--set", "false_alarms_per_10k=2")
    assert json.loads(done.stdout)["incidents"][0]["action"]["rewind_to"] == 0
    done = monitor("backtest", str(curve), "--compare", COLUMNS="200")
    assert "trainscope" in done.stdout
    for bad in ("min_depth=x", "min_depth=0", "depth=3", "min_depth"):
        done = monitor("backtest", str(curve), "--set", bad)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert bad in done.stderr
