"""MLflow's file and SQLite stores, as MLflow itself writes them, and as they lie on the disk."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from lossguard.sources import formats
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.vocabulary.states import RunState

pytestmark = pytest.mark.filterwarnings("ignore")


def write_run(store: Any) -> str:
    """A run with NaN, infinity and a step back: its id."""
    from mlflow.entities import Metric, Param, RunStatus, RunTag

    experiment = store.create_experiment("gpt")
    tags = [RunTag("team", "blue"), RunTag("mlflow.source.name", "train.py")]
    run_id: str = store.create_run(experiment, "me", 1_700_000_000_000, tags, "warm").info.run_id
    steps = [*range(10), *range(5, 12)]
    losses = [math.nan if at == 3 else 3.0 - at / 10 for at in range(len(steps))]
    metrics = [
        Metric("train/loss", loss, 1_700_000_000_000 + at, step)
        for at, (step, loss) in enumerate(zip(steps, losses, strict=True))
    ]
    metrics += [Metric("grad_norm", math.inf, 1_700_000_000_000, 0)]
    store.log_batch(run_id, metrics, [Param("lr", "0.1")], [])
    store.update_run_info(run_id, RunStatus.FINISHED, 1_700_000_001_000, "warm")
    return run_id


def check(run: SourceRun, run_id: str) -> None:
    assert (run.identity, run.name, run.project, run.state) == (run_id, "warm", "gpt", RunState.FINISHED)
    assert (run.config, list(run.tags), run.command) == ({"lr": "0.1"}, ["team=blue"], "train.py")
    assert (run.started_at, run.ended_at) == (1_700_000_000.0, 1_700_000_001.0)
    rows = list(run.rows())
    assert [row.step for row in rows] == [*range(10), *range(5, 12)]
    assert rows[0].values == {"train/loss": 3.0, "grad_norm": math.inf}
    assert math.isnan(rows[3].values["train/loss"])
    assert rows[12].time == 1_700_000_000.012


@pytest.mark.system
def test_runs_of_the_file_store_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.store.tracking.file_store import FileStore

    make: Any = FileStore
    run_id = write_run(make(str(tmp_path / "mlruns")))
    (run,) = formats.runs_in(tmp_path)
    check(run, run_id)


@pytest.mark.system
def test_runs_of_the_sqlite_store_are_read_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with warnings.catch_warnings(action="ignore"):
        make: Any = SqlAlchemyStore
        store = make(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "mlruns"))
        run_id = write_run(store)
        store.engine.dispose()
    before = (tmp_path / "mlflow.db").read_bytes()
    (run,) = formats.runs_in(tmp_path)
    check(run, run_id)
    assert run.size == 12
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert not list(tmp_path.glob("mlflow.db-*"))


def write_files(folder: Path, metrics: dict[str, str]) -> Path:
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
    write_files(tmp_path, {"loss": "1 3.0 0\n3 nan 1\n9 2.5 1\n", "a/b": "2 0.5 0\n4 inf 1 model-1 x\n"})
    (tmp_path / "7" / "abc" / "params").mkdir()
    for name, text in {"logging_steps": "10", "logging_nan_inf_filter": "True"}.items():
        (tmp_path / "7" / "abc" / "params" / name).write_text(text)
    (run,) = formats.runs_in(tmp_path)
    assert (run.facts.stride, run.facts.averaged, run.facts.nan_filtered) == (10, True, True)
    rows = list(run.rows())
    assert [(row.step, row.time) for row in rows] == [(0, 0.001), (1, 0.003)]
    assert rows[0].values == {"loss": 3.0, "a/b": 0.5}
    assert rows[1].values == {"loss": 2.5, "a/b": math.inf}
    assert (run.name, run.project, run.started_at, run.ended_at) == ("a\tb", "it's: gpt", 1.0, None)


def test_the_samples_of_the_hardware_go_with_the_newest_step(tmp_path: Path) -> None:
    """MLflow numbers them by themselves: three before the first step, and step 1 is the fourth."""
    samples = "".join(f"{at} 50 {number}\n" for number, at in enumerate((1, 2, 3, 15, 22, 32)))
    losses = "10 3.0 0\n12 2.5 1\n20 2.0 2\n30 2.5 1\n40 2.0 2\n"  # back to step 1
    write_files(tmp_path, {"loss": losses, "system/gpu": samples})
    (run,) = formats.runs_in(tmp_path)
    assert [(row.step, sorted(row.values)) for row in run.rows()] == [
        *((0, ["loss", "system/gpu"]), (1, ["loss", "system/gpu"]), (2, ["loss", "system/gpu"])),
        *((1, ["loss", "system/gpu"]), (2, ["loss"])),
    ]


def test_the_last_line_may_be_unfinished_and_any_other_may_not(tmp_path: Path) -> None:
    run = write_files(tmp_path, {"loss": "1 3.0 0\n3 2"})
    (found,) = formats.runs_in(tmp_path)
    assert len(list(found.rows())) == 1
    (run / "metrics" / "loss").write_text("1 3.0 0\nx\n3 2.0 1\n")
    with pytest.raises(BadSource, match=r"loss, line 2 is not: timestamp, value, step"):
        list(found.rows())
