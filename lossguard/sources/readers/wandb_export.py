"""W&B exports: the history of a run as Parquet (also of other tools: a table with a step), and the CSV of a chart.

A chart's CSV has a column "Step", and for each run and metric the columns "run - metric", "run - metric__MIN" and
"run - metric__MAX".
"""

import csv
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

from lossguard.sources.columns import Columns, number_of, step_of, time_of
from lossguard.sources.files.growing_file import MAX_LINE
from lossguard.sources.files.line_format import beginning, files_in, has_common_name, identity_of
from lossguard.sources.files.parquet_file import batches, column_names, num_rows, parquet_files_in
from lossguard.sources.files.source_files import lines_of
from lossguard.sources.readers import neptune_export
from lossguard.sources.rows import Row, StoredScalar, joined
from lossguard.sources.source_run import SourceRun

WHAT = "W&B exports and other Parquet tables with a step"
SEPARATOR = " - "
BOUNDS = ("__MIN", "__MAX")
"""Ends of the columns that a chart of many steps adds."""
OWN_NAMES = "_"


def runs_in(path: Path) -> Iterator[SourceRun]:
    files = [file for file in parquet_files_in(path) if _step_of(column_names(file)) is not None]
    for _, parts in groupby(files, key=lambda file: file.parent if file.stem.isdecimal() else file):
        yield _parquet_run(list(parts))
    for file in files_in(path, (".csv",)):
        yield from _chart_runs(file)


def is_chart(header: Sequence[str]) -> bool:
    """Return True if a CSV with these columns is that of a chart."""
    return header[:1] == ["Step"] and any(name.endswith(SEPARATOR + "_step") or BOUNDS[0] in name for name in header)


def _step_of(names: Sequence[str]) -> str | None:
    return None if neptune_export.is_export(names) else Columns().step_in(names)


def _parquet_run(files: Sequence[Path]) -> SourceRun:
    """Files with numbers for names are the parts of one run."""
    first = files[0]
    is_part = first.stem.isdecimal() or has_common_name(first)
    place = first if len(files) == 1 else first.parent
    beginning_of_run = repr(next(_parquet_rows([first]), None))
    return SourceRun(
        format="wandb-export",
        identity=identity_of(place, beginning_of_run.encode()),
        name=first.resolve().parent.name if is_part else first.stem,
        place=str(place),
        rows=lambda: _parquet_rows(files),
        ended_at=first.stat().st_mtime,
        size=sum(map(num_rows, files)),
    )


def _parquet_rows(files: Sequence[Path]) -> Iterator[Row]:
    return joined(scalar for file in files for scalar in _parquet_scalars(file))


def _parquet_scalars(path: Path) -> Iterator[StoredScalar]:
    names = column_names(path)
    step_name, time_name = _step_of(names), Columns().time_in(names)
    for batch in batches(path):
        steps = batch[step_name or ""]
        times = batch[time_name] if time_name is not None else [None] * len(steps)
        others = (step_name, time_name)
        metrics = {
            name: cells for name, cells in batch.items() if name not in others and not name.startswith(OWN_NAMES)
        }
        for at, (cell, time) in enumerate(zip(steps, times, strict=True)):
            step = step_of(cell)
            seconds = time.timestamp() if isinstance(time, datetime) else time_of(time)
            for name, cells in metrics.items():
                if step is not None and (number := number_of(cells[at])) is not None:
                    yield StoredScalar(seconds or 0.0, step, name, number)


def _chart_runs(path: Path) -> Iterator[SourceRun]:
    lines = beginning(path)
    header = next(csv.reader([lines[0].decode("utf-8-sig", errors="replace")]), []) if lines else []
    if not is_chart(header):
        return
    columns: dict[str, dict[int, str]] = {}
    for at, name in enumerate(header[1:], start=1):
        run, separator, metric = name.rpartition(SEPARATOR)
        if separator and not metric.startswith(OWN_NAMES) and not metric.endswith(BOUNDS):
            columns.setdefault(run, {})[at] = metric
    for run, metrics in columns.items():
        yield SourceRun(
            format="wandb-export",
            identity=identity_of(path, f"{run}:{lines[1:2]}".encode()),
            name=run,
            place=f"{path}, run {run}",
            rows=lambda metrics=metrics: _chart_rows(path, metrics),  # type: ignore[misc]
            ended_at=path.stat().st_mtime,
        )


def _chart_rows(path: Path, metrics: dict[int, str]) -> Iterator[Row]:
    reader = csv.reader(lines_of(path, MAX_LINE))
    next(reader, None)
    for cells in reader:
        step = step_of(cells[0]) if cells else None
        found = {name: number_of(cells[at]) for at, name in metrics.items() if at < len(cells)}
        values = {name: number for name, number in found.items() if number is not None}
        if step is not None and values:
            yield Row(step, None, values)
