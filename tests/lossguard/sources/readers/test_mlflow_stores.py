"""MLflow's file and SQLite stores, as MLflow itself writes them."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from lossguard.sources import formats
from lossguard.sources.source_run import SourceRun
from lossguard.vocabulary.states import RunState

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore")]


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


def test_runs_of_the_file_store_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.store.tracking.file_store import FileStore

    make: Any = FileStore
    run_id = write_run(make(str(tmp_path / "mlruns")))
    (run,) = formats.runs_in(tmp_path)
    check(run, run_id)


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
