"""A CSV file becomes rows, or one sentence with file and line."""

from pathlib import Path

import numpy as np
import pytest

from monitor.backtesting.backtest import CurveError, backtest_file, read_curve
from monitor.detection.curve import parse_curve
from tests.monitor.backtesting.curve_files import written


def test_nan_is_news_and_an_empty_cell_is_none(tmp_path: Path) -> None:
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


COLUMNS = [f"c{number}" for number in range(100_000)]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([",".join(COLUMNS), "1,2"], "no column step and no column loss among c0, c1, .* and 99,988 more"),
        ([",".join(["step", "loss", *["again"] * 100_000])], "column again appears twice"),
        (["step,loss", "1," + "x" * 100_000], "loss is 'x{40}...', not a number"),
        (["step,loss", "1," + "9" * 200_000], "cannot be read: field larger than field limit"),
        (["step,loss,c", "1,2," + "1," * 100_000], "the number of cells is 100003, the number of columns 3"),
        (["step,loss", *(f"{step},2" for step in range(100))], "line 52: a curve may have 50 rows here"),
    ],
)
def test_a_hostile_file_gets_a_short_sentence_in_a_short_time(lines: list[str], sentence: str) -> None:
    with pytest.raises(CurveError, match=sentence) as raised:
        parse_curve("a.csv", lines, max_rows=50)
    assert len(str(raised.value)) < 300


def test_columns_that_no_detector_reads_are_not_kept() -> None:
    header, row = ",".join(["step", "loss", *COLUMNS]), ",".join(["{}", "2", *["1"] * 100_000])
    rows = parse_curve("a.csv", (header if at == 0 else row.format(at) for at in range(4)))
    assert (rows.steps.tolist(), list(rows.metrics)) == ([1, 2, 3], ["loss"])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_refused_as_such(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,loss,caf\u00e9\n1,2,3\n", encoding=encoding)
    with pytest.raises(CurveError, match="it is not UTF-8 text; save it as CSV in UTF-8"):
        read_curve(path)
