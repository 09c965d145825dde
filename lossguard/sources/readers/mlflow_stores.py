"""Both of MLflow's stores: a folder often has a SQLite file beside mlruns/, which then holds artifacts alone."""

from collections.abc import Iterator
from pathlib import Path

from lossguard.sources.readers import mlflow_files, mlflow_sqlite
from lossguard.sources.source_run import SourceRun

WHAT = "MLflow's file and SQLite stores"


def runs_in(path: Path) -> Iterator[SourceRun]:
    yield from mlflow_sqlite.runs_in(path)
    yield from mlflow_files.runs_in(path)
