"""The history of a W&B run as Parquet, and the CSV of a chart."""

import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lossguard.sources import formats
from lossguard.sources.source_run import BadSource

TIME = 1_700_000_000.0


def write(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def history(first: int, count: int) -> dict[str, list[Any]]:
    steps = list(range(first, first + count))
    losses = [math.nan if step == 7 else None if step == 8 else 3.0 for step in steps]
    times = [TIME + step for step in steps]
    return {"_step": steps, "_timestamp": times, "_runtime": times, "train/loss": losses, "note": ["x"] * count}


def test_the_parts_of_a_history_are_one_run(tmp_path: Path) -> None:
    write(tmp_path / "run-a-history" / "0000.parquet", history(0, 10))
    write(tmp_path / "run-a-history" / "0001.parquet", history(10, 5))
    (run,) = formats.runs_in(tmp_path)
    rows = list(run.rows())
    assert run.name == "run-a-history"
    assert [row.step for row in rows] == [step for step in range(15) if step != 8]
    assert math.isnan(rows[7].values["train/loss"])
    assert rows[0].values == {"train/loss": 3.0}
    assert rows[9].time == TIME + 10
    assert run.size == 15


def test_the_csv_of_a_chart_has_a_run_for_each_of_its_names(tmp_path: Path) -> None:
    header = (
        '"Step","warm - train/loss","warm - train/loss__MIN","warm - train/loss__MAX","a - b - loss","a - b - _step"'
    )
    (tmp_path / "chart.csv").write_text(f'{header}\n"0","3.0","2.9","3.1","","0"\n"10","NaN","","","2.0","10"\n')
    runs = {run.name: list(run.rows()) for run in formats.runs_in(tmp_path)}
    assert [(row.step, sorted(row.values)) for row in runs["warm"]] == [(0, ["train/loss"]), (10, ["train/loss"])]
    assert math.isnan(runs["warm"][1].values["train/loss"])
    assert [(row.step, row.values) for row in runs["a - b"]] == [(10, {"loss": 2.0})]


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", {"step": [0], "loss": [1.0]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BadSource, match="pip install pyarrow"):
        formats.runs_in(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadSource, match=r"a\.parquet cannot be read as a Parquet file"):
        formats.runs_in(tmp_path)
