"""Import exported files, and steps from other sources as CSV. One transaction imports the whole file or nothing.

Parquet   a file that `db.files.export` wrote: the whole run. Its roll-ups are computed again.
CSV       a header and one row per step: `step`, optionally `segment` (0 by default) and `time` (unix seconds; now by
          default), and one column for each metric. `live` is ignored: the tree of segments follows from their first
          steps, and the segment with the highest number is the newest. The caller names the run.

Steps rise within a segment. One block of rows is in memory at a time, whatever the length of the file.
"""

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.engine import first_line
from db.files import record
from db.files.export import KEY
from db.models import Run, Segment
from db.steps import rollups, writer
from db.steps.buckets import Floats, Ints
from db.steps.columns import Bools, MetricColumn, column_of, metric_of
from db.steps.reader import MAX_BLOCK_STEPS, StepBlock
from lossguard.metrics import COUNTS
from lossguard.protocol import MAX_COUNT, is_name
from lossguard.states import RunState, SegmentReason

MAX_FOOTER_BYTES = 2**31 - 1
"""Of a Parquet file, which holds the description; a run with a million events needs more than the default of 100 MB."""

MAX_MISSING_SEGMENTS = 100
"""How many numbers of segments a CSV may leave out before one that has steps."""


class BadFile(ValueError):
    """The file cannot be imported. The message is one sentence: what is wrong, where, and what to do."""


def import_file(
    session: Session, *, path: Path, now: float, run_id: str | None = None, project: str | None = None
) -> tuple[Run, int]:
    """Import a file: (its run, the number of its steps). Raises BadFile or record.RunExists: roll back then.

    `run_id` replaces the id in the file; the default for a CSV is the name of the file. `project` is for a CSV.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return _import_parquet(session, path, run_id)
        return _import_csv(session, path, run_id or path.stem, project or "imported", now)
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}; name a file of `python -m db export`, or a CSV") from None
    except UnicodeDecodeError:
        raise BadFile(f"{path}: neither a Parquet file nor a CSV in UTF-8") from None
    except (pa.ArrowException, csv.Error, OSError, json.JSONDecodeError, record.BadRecord) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise BadFile(f"{path}: {reason.splitlines()[0]}") from error
    except sa.exc.IntegrityError as error:
        raise BadFile(f"{path}: the file contradicts itself: {first_line(error.orig)}") from error


def _import_parquet(session: Session, path: Path, run_id: str | None) -> tuple[Run, int]:
    with pyarrow.parquet.ParquetFile(path, thrift_string_size_limit=MAX_FOOTER_BYTES) as file:
        text = (file.schema_arrow.metadata or {}).get(KEY)
        if text is None:
            raise BadFile(f"{path}: this Parquet file does not hold a run; write one with: python -m db export RUN")
        described = json.loads(text)
        run = record.restore(session, described, run_id=run_id)
        names: list[str] = described["metrics"]
        expected = ["segment", "step", "time", *map(column_of, names)]
        missing = [name for name in expected if name not in file.schema_arrow.names]
        if missing:
            raise BadFile(f"{path}: the column {missing[0]!r} is missing")
        batches = file.iter_batches(batch_size=MAX_BLOCK_STEPS, columns=expected)
        count = _StepImport(session, path, run, names).insert_all(batches)
        _check_complete(session, path, run, described)
    return run, count


def _check_complete(session: Session, path: Path, run: Run, described: dict[str, Any]) -> None:
    for segment, description in zip(queries.segments(session, run=run), described["segments"], strict=True):
        if segment.num_steps != description["num_steps"]:
            raise BadFile(
                f"{path}: segment {segment.number} has {segment.num_steps} steps, but its description says "
                f"{description['num_steps']}; the file is damaged, export the run again"
            )


def _import_csv(session: Session, path: Path, run_id: str, project: str, now: float) -> tuple[Run, int]:
    header = _header(path)
    kinds = {"segment": pa.int32(), "step": pa.int64(), "live": pa.string()}
    options = pyarrow.csv.ConvertOptions(
        column_types={name: kinds.get(name, pa.float64()) for name in header},
        include_columns=[name for name in header if name != "live"],
        null_values=[""],
    )
    names = [name for column in header if (name := metric_of(column)) is not None]
    run = record.add_run(session, _bare_run(run_id, project, now))
    with pyarrow.csv.open_csv(path, convert_options=options) as batches:
        steps = _StepImport(session, path, run, names, now=now)
        count = steps.insert_all(batches)
    run.started_at, run.last_report_at = steps.times or (now, now)
    run.finished_at = run.last_report_at
    return run, count


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    if "step" not in header:
        raise BadFile(f"{path}: no column `step`; the first line must name the columns: step, and one for each metric")
    if twice := [name for name in header if header.count(name) > 1]:
        raise BadFile(f"{path}: two columns have the name {twice[0]!r}")
    for column in header:
        name = metric_of(column)
        if name is not None and not is_name(name):
            raise BadFile(f"{path}: {name!r} cannot be the name of a metric; use 1 to 128 printable characters")
    return header


def _bare_run(run_id: str, project: str, now: float) -> dict[str, Any]:
    nothing: dict[str, Any] = {"config": {}, "devices": [], "versions": {}, "capabilities": [], "restorable_steps": []}
    times = {"started_at": now, "last_report_at": now, "finished_at": now}
    return {"id": run_id, "project": project, "state": RunState.FINISHED, **nothing, **times}


class _StepImport:
    """Inserts the steps of one file into a run, in the order of its rows, and creates the segments that are missing."""

    def __init__(self, session: Session, path: Path, run: Run, names: list[str], now: float | None = None) -> None:
        self._session, self._path, self._run, self._names, self._now = session, path, run, names, now
        self._segments = {segment.number: segment for segment in queries.segments(session, run=run)}
        self._row = 0
        self.times: tuple[float, float] | None = None
        """The first and the last time in the file."""
        rollups.metric_numbers(session, run_pk=run.pk, names=names)

    def insert_all(self, batches: Iterator[pa.RecordBatch]) -> int:
        """Insert all rows: their number."""
        for batch in batches:
            for block in self._blocks(batch):
                self._insert(block)
                self._row += len(block)
        return self._row

    def _blocks(self, batch: pa.RecordBatch) -> Iterator[StepBlock]:
        """The rows of a batch, split where the segment changes."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        steps, segments = self._whole(columns, "step"), self._whole(columns, "segment", 0)
        times = self._times(columns, len(steps))
        metrics = {name: self._metric(name, columns[column_of(name)]) for name in self._names}
        edges = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(steps)]
        for first, last in itertools.pairwise(edges):
            if first < last:
                rows = slice(first, last)
                columns_of_rows = {name: column.at(rows) for name, column in metrics.items()}
                yield StepBlock(int(segments[first]), steps[rows], times[rows], columns_of_rows)

    def _insert(self, block: StepBlock) -> None:
        segment = self._segment(block)
        before = -1 if segment.last_step is None else segment.last_step
        self._refuse(np.diff(block.steps, prepend=before) <= 0, "does not rise above the one before it", "step")
        steps = block.steps.tolist()
        writer.insert_steps(
            self._session,
            run=self._run,
            segment=segment.number,
            steps=steps,
            times=block.times.tolist(),
            metrics=block.metrics,
        )
        commands.grow_segment(segment, steps=steps)
        self.times = (self.times[0] if self.times else float(block.times[0]), float(block.times[-1]))

    def _segment(self, block: StepBlock) -> Segment:
        """The segment of a block. One that does not exist is created, unless the file describes its segments."""
        if block.segment not in self._segments:
            if self._now is None:
                raise self._bad(0, f"there is no segment {block.segment} in the description")
            num_missing = block.segment - len(self._segments)
            if num_missing > MAX_MISSING_SEGMENTS:
                raise self._bad(0, f"segment {block.segment} skips {num_missing} numbers; segments count from 0")
            for number in range(len(self._segments), block.segment):
                self._segments[number] = self._open(number, None, block)  # it has no steps
            self._segments[block.segment] = self._open(block.segment, int(block.steps[0]), block)
        return self._segments[block.segment]

    def _open(self, number: int, first: int | None, block: StepBlock) -> Segment:
        before = max((one.last_step for one in self._segments.values() if one.last_step is not None), default=-1)
        went_back = first is not None and first <= before
        reason = SegmentReason.REWIND if went_back else SegmentReason.RESUME
        opened = max((one.opened_at for one in self._segments.values()), default=0.0)
        segment, _ = commands.open_segment(
            self._session,
            run=self._run,
            key=f"imported-{number}",
            fork_step=first,
            reason=reason if number else SegmentReason.START,
            order_id=None,
            opened_at=max(opened, float(block.times[0])),  # so that the highest number is the newest
        )
        return segment

    def _whole(self, columns: dict[str, pa.Array], name: str, default: int | None = None) -> Ints:
        """A column of whole numbers from 0, none of them missing."""
        if name not in columns:
            return np.full(len(columns["step"]), default, dtype=np.int64)
        numbers: Ints = columns[name].cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        self._refuse((numbers < 0) | (numbers >= 2**62), f"is missing or not the number of a {name}", name)
        return numbers

    def _times(self, columns: dict[str, pa.Array], length: int) -> Floats:
        if "time" not in columns:
            return np.full(length, self._now, dtype=np.float64)
        times: Floats = columns["time"].cast(pa.float64()).to_numpy(zero_copy_only=False)
        self._refuse(~((times >= 0) & (times < 1e11)), "is missing or not a time in unix seconds", "time")
        return times

    def _metric(self, name: str, column: pa.Array) -> MetricColumn:
        values: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        reported: Bools = column.is_valid().to_numpy(zero_copy_only=False)
        finite = np.isfinite(values) & reported
        if name in COUNTS:
            self._refuse(
                finite & (np.abs(values) >= MAX_COUNT), "is beyond any count that a run can reach", column_of(name)
            )
        return MetricColumn(values, reported, finite, bool(finite.all()))

    def _refuse(self, wrong: Bools, what: str, column: str) -> None:
        if wrong.any():
            raise self._bad(int(np.flatnonzero(wrong)[0]), f"{column} {what}")

    def _bad(self, at: int, what: str) -> BadFile:
        return BadFile(f"{self._path}: row {self._row + at + 1}: {what}; correct the file, nothing was imported")
