"""MLflow's file store as it lies on the disk; `test_mlflow_stores` reads one that MLflow itself has written."""

import math
from pathlib import Path

import pytest

from lossguard.sources.readers.mlflow_files import runs_in
from lossguard.sources.source_run import BadSource


def write(folder: Path, metrics: dict[str, str]) -> Path:
    run = folder / "7" / "abc"
    for name, text in metrics.items():
        file = run / "metrics" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "7" / "meta.yaml").write_text("experiment_id: '7'\nname: 'it''s: gpt'\n")
    meta = 'artifact_uri: file:///a\nrun_id: abc\nrun_name: "a\\tb"\nstatus: 5\nstart_time: 1000\nend_time: null\n'
    (run / "meta.yaml").write_text(meta + "lifecycle_stage: active\n")
    return run


def test_metrics_of_one_step_are_one_row_and_a_step_that_goes_back_is_a_row_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"loss": "1 3.0 0\n3 nan 1\n9 2.5 1\n", "a/b": "2 0.5 0\n4 inf 1 model-1 x\n"})
    (tmp_path / "7" / "abc" / "params").mkdir()
    for name, text in {"logging_steps": "10", "logging_nan_inf_filter": "True"}.items():
        (tmp_path / "7" / "abc" / "params" / name).write_text(text)
    (run,) = runs_in(tmp_path)
    assert (run.facts.stride, run.facts.averaged, run.facts.nan_filtered) == (10, True, True)
    rows = list(run.rows())
    assert [(row.step, row.time) for row in rows] == [(0, 0.001), (1, 0.003)]
    assert rows[0].values == {"loss": 3.0, "a/b": 0.5}
    assert rows[1].values == {"loss": 2.5, "a/b": math.inf}
    assert (run.name, run.project, run.started_at, run.ended_at) == ("a\tb", "it's: gpt", 1.0, None)


def test_the_last_line_may_be_unfinished_and_any_other_may_not(tmp_path: Path) -> None:
    run = write(tmp_path, {"loss": "1 3.0 0\n3 2"})
    (found,) = runs_in(tmp_path)
    assert len(list(found.rows())) == 1
    (run / "metrics" / "loss").write_text("1 3.0 0\nx\n3 2.0 1\n")
    with pytest.raises(BadSource, match=r"loss, line 2 is not: timestamp, value, step"):
        list(found.rows())
