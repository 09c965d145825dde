"""The published rules beside ours, as a table."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from monitor.backtesting.backtest import CurveError
from monitor.backtesting.comparison import comparison
from monitor.backtesting.published_rules import RULES
from monitor.detection import DetectionSettings


def printed(path: Path) -> str:
    file = io.StringIO()
    Console(width=160, file=file).print(comparison([path], DetectionSettings()))
    return file.getvalue()


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    rows = [f"{step},{3.0 + 0.01 * (step % 7)}" for step in range(300)] + ["300,nan"]
    path = tmp_path / "curve.csv"
    path.write_text("step,loss\n" + "\n".join(rows))
    return path


def test_every_rule_has_a_row_and_ours_comes_first(curve: Path) -> None:
    lines = printed(curve).splitlines()
    named = [name for line in lines for name in ["Lossguard", *RULES] if name in line]
    assert named == ["Lossguard", *RULES]
    assert "300" in next(line for line in lines if "Lossguard" in line)


def test_our_row_says_how_many_incidents_would_have_led_to_an_action(curve: Path) -> None:
    columns = next(line for line in printed(curve).splitlines() if "Lossguard" in line).split("\u2502")
    assert [column.strip() for column in columns[3:5]] == ["1", "1"]


def test_labels_beside_the_file_say_how_many_onsets_are_found(curve: Path) -> None:
    label = {"kind": "diverged", "onsets": [300], "ambiguous": []}
    curve.with_name("labels.json").write_text(json.dumps({"curve": label}))
    assert "1/1 = 100%" in next(line for line in printed(curve).splitlines() if "Lossguard" in line)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CurveError, match="cannot be read"):
        comparison([tmp_path / "none.csv"], DetectionSettings())
