"""trackio's SQLite files, as the real trackio writes them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lossguard.sources import formats
from lossguard.sources.source_run import BadSource
from tests.lossguard.sources.readers.hostile import CONFIGS, METRICS, ROW, STEPS, sqlite_file

SCRIPT = """
import math, trackio
for name in ("warm", "cold"):
    trackio.init(project="gpt", name=name, config={"lr": 0.1})
    for step in range(20):
        trackio.log({"train/loss": math.nan if step == 3 else 3.0 - step, "nested": {"a": 1}, "text": "no"})
    trackio.finish()
"""


@pytest.mark.system
def test_runs_are_read_with_their_names_configuration_and_times(tmp_path: Path) -> None:
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, timeout=120)
    warm, cold = formats.runs_in(tmp_path)
    assert [(run.name, run.project, run.config) for run in (warm, cold)] == [
        ("warm", "gpt", {"lr": 0.1}),
        ("cold", "gpt", {"lr": 0.1}),
    ]
    rows = list(warm.rows())
    assert [row.step for row in rows] == list(range(20))
    assert rows[0].values == {"train/loss": 3.0, "nested/a": 1.0}
    assert math.isnan(rows[3].values["train/loss"])
    assert warm.started_at is not None
    assert warm.started_at <= (rows[0].time or 0.0) <= (warm.ended_at or 0.0)
    assert warm.run_id != cold.run_id


def test_a_file_without_ids_of_runs_knows_them_by_their_names(tmp_path: Path) -> None:
    sqlite_file(tmp_path / "gpt.db", METRICS, CONFIGS, *(ROW.format(step).replace("1.5", "Infinity") for step in STEPS))
    (run,) = formats.runs_in(tmp_path)
    assert [(row.step, row.values) for row in run.rows()] == [(step, {"loss": math.inf}) for step in STEPS]


def test_another_sqlite_file_is_none(tmp_path: Path) -> None:
    sqlite_file(tmp_path / "a.db", "CREATE TABLE metrics (x)")
    with pytest.raises(BadSource, match="holds no run"):
        formats.runs_in(tmp_path)
    (tmp_path / "a.db").write_bytes((tmp_path / "a.db").read_bytes()[:50])
    with pytest.raises(BadSource, match="a SQLite file"):
        formats.runs_in(tmp_path)
