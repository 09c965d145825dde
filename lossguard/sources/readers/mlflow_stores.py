"""MLflow's stores: SQLite files, and folders (mlruns/). A folder of artifacts often lies beside a SQLite file."""

import heapq
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lossguard.sources.files import sqlite_store
from lossguard.sources.files.source_files import files_below, lies_in, lines_of, read_beginning
from lossguard.sources.names import SYSTEM_METRICS
from lossguard.sources.rows import Row, StoredScalar, joined
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.vocabulary.source_facts import SourceFacts, facts_of
from lossguard.vocabulary.states import RunState

WHAT = "MLflow's file and SQLite stores"


def runs_in(path: Path) -> Iterator[SourceRun]:
    yield from _runs_in_sqlite(path)
    yield from _runs_in_folders(path)


# A run as both stores keep it: params, tags, times in milliseconds, a state.

STATES = {
    "FINISHED": RunState.FINISHED,
    "3": RunState.FINISHED,
    "FAILED": RunState.FAILED,
    "4": RunState.FAILED,
}
"""By the status, which is a number in files. Any other run was stopped, or still runs."""
OWN_TAGS = "mlflow."


def _on_one_axis(scalars: Iterable[StoredScalar]) -> Iterator[StoredScalar]:
    """The scalars in the order of their times, MLflow's system metrics at the newest step of the others."""
    newest, last_steps = 0, dict[str, int]()
    for scalar in scalars:
        if scalar.name.startswith(SYSTEM_METRICS):
            yield scalar._replace(step=newest)
            continue
        if goes_back := scalar.step < last_steps.get(scalar.name, 0):
            last_steps.clear()
        newest = scalar.step if goes_back else max(newest, scalar.step)
        last_steps[scalar.name] = scalar.step
        yield scalar


def facts_in(params: Mapping[str, Any]) -> SourceFacts:
    """Return what the params say about how the rows were made. MLflow keeps them as text."""
    return facts_of({name: _param(str(text)) for name, text in params.items()})


def _param(text: str) -> Any:
    return {"True": True, "False": False}.get(text, int(text) if text.isdecimal() and len(text) < 10 else text)


def _described(
    meta: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    place: str,
    rows: Callable[[], Iterator[Row]],
    size: int | None = None,
) -> SourceRun:
    """`meta`: facts of the run under the names that meta.yaml has, and its experiment; times in unix milliseconds."""
    run_id, started_at, ended_at = meta["run_id"], meta["start_time"], meta["end_time"]
    return SourceRun(
        format="mlflow",
        identity=run_id,
        name=meta.get("run_name") or tags.get("mlflow.runName") or run_id,
        place=f"{place}, run {run_id}",
        rows=rows,
        project=meta["experiment"],
        config=params,
        tags=[f"{key}={value}" for key, value in tags.items() if not key.startswith(OWN_TAGS)],
        started_at=started_at / 1000 if started_at else None,
        ended_at=ended_at / 1000 if ended_at else None,
        state=STATES.get(meta["status"], RunState.INTERRUPTED),
        command=tags.get("mlflow.source.name"),
        git_commit=tags.get("mlflow.source.git.commit"),
        facts=facts_in(params),
        size=size,
    )


# The SQLite store (sqlite:///mlflow.db).

TABLES = {
    "experiments": ("experiment_id", "name"),
    "runs": ("run_uuid", "experiment_id", "status", "start_time", "end_time"),
    "metrics": ("run_uuid", "key", "value", "timestamp", "step", "is_nan"),
    "params": ("run_uuid", "key", "value"),
    "tags": ("run_uuid", "key", "value"),
}
LARGEST = 1.7976931348623157e308
"""Stands for an infinite value."""
RUNS = (
    "SELECT run_uuid, experiments.name, status, start_time, end_time FROM runs"
    " LEFT JOIN experiments ON experiments.experiment_id = runs.experiment_id"
    " WHERE runs.lifecycle_stage IS NOT 'deleted' ORDER BY start_time, run_uuid"
)
METRICS = (
    "SELECT timestamp, step, key, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, key, value"
)


def _runs_in_sqlite(path: Path) -> Iterator[SourceRun]:
    for file in sqlite_store.stores_in(path, TABLES):
        with sqlite_store.opened(file) as store:
            for values in store.execute(RUNS).fetchall():
                meta = dict(zip(("run_id", "experiment", "status", "start_time", "end_time"), values, strict=True))
                run_id = meta["run_id"]
                params, tags = (
                    dict(store.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (run_id,)))
                    for table in ("params", "tags")
                )
                (steps,) = store.execute("SELECT count(DISTINCT step) FROM metrics WHERE run_uuid = ?", (run_id,))
                yield _described(
                    meta,
                    params=params,
                    tags=tags,
                    place=str(file),
                    rows=partial(_rows_of_sqlite, file, run_id),
                    size=steps[0],
                )


def _rows_of_sqlite(path: Path, run_id: str) -> Iterator[Row]:
    with sqlite_store.opened(path) as store:
        scalars = (
            StoredScalar(timestamp / 1000, step, key, _number_in(value, is_nan))
            for timestamp, step, key, value, is_nan in store.execute(METRICS, (run_id,))
        )
        yield from joined(_on_one_axis(scalars))


def _number_in(value: float, is_nan: int) -> float:
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


# The file store: a folder for each experiment, in it one for each run, in it a file for each metric.

MAX_TEXT_BYTES = 64 << 10
"""Bytes that are read of a param, a tag or a meta.yaml; MLflow itself allows fewer."""
MAX_LINE_BYTES = 1000
"""Maximum bytes of a line: a time, a value, a step, and what newer releases append."""
_WHOLE = re.compile(r"-?\d{1,18}")


def _runs_in_folders(path: Path) -> Iterator[SourceRun]:
    if not path.is_dir():
        return
    for meta_file in files_below(path, "meta.yaml"):
        meta = _read_meta(meta_file)
        if not meta.get("run_id") or "artifact_uri" not in meta or meta.get("lifecycle_stage") == "deleted":
            continue
        folder = meta_file.parent
        times = {name: _whole(meta.get(name)) for name in ("start_time", "end_time")}
        others = {"experiment": _read_meta(folder.parent / "meta.yaml").get("name"), "status": meta.get("status")}
        yield _described(
            {**meta, **times, **others},
            params=_texts(folder / "params"),
            tags=_texts(folder / "tags"),
            place=str(folder),
            rows=partial(_rows_of_files, folder / "metrics"),
        )


def _rows_of_files(folder: Path) -> Iterator[Row]:
    files = _files_in(folder)
    scalars = heapq.merge(*(_scalars(file, file.relative_to(folder).as_posix()) for file in files))
    return joined(_on_one_axis(scalars))


def _scalars(path: Path, name: str) -> Iterator[StoredScalar]:
    """A line is: timestamp (ms), value, step. The first stores had no step, newer ones append more."""
    for number, line in enumerate(lines_of(path, MAX_LINE_BYTES), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            step = int(cells[2]) if len(cells) > 2 else 0
            yield StoredScalar(int(cells[0]) / 1000, step, name, float(cells[1]))
        except (ValueError, IndexError, OverflowError):
            if line.endswith("\n"):  # else the line is still being written
                raise BadSource(f"{path}, line {number} is not: timestamp, value, step") from None


def _texts(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): _text(file) for file in _files_in(folder)}


def _files_in(folder: Path) -> list[Path]:
    """The files of one folder of a run, which must lie in the folder of the run."""
    return files_below(folder) if folder.is_dir() and lies_in(folder, folder.parent) else []


def _text(path: Path) -> str:
    return read_beginning(path, MAX_TEXT_BYTES).decode("utf-8", errors="replace")


def _read_meta(path: Path) -> dict[str, str | None]:
    """The flat YAML that MLflow writes: a name and a value per line."""
    if not lies_in(path, path.parent):
        return {}
    try:
        lines = _text(path).splitlines()
    except OSError:
        return {}
    return {name: _scalar(value.strip()) for line in lines for name, colon, value in [line.partition(": ")] if colon}


def _scalar(text: str) -> str | None:
    if text[:1] == text[-1:] == "'" and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return None if text in ("null", "~", "") else text


def _whole(text: str | None) -> int | None:
    return int(text) if text and _WHOLE.fullmatch(text) else None
