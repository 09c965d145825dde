"""Exported files back into a store, and steps that come from elsewhere as CSV. One transaction: all of it or nothing.

Parquet   what `db.export` writes: the whole run, its roll-ups made anew.
CSV       a header and one row per step: `step`, optionally `segment` (0 where missing) and `time` (unix seconds; now
          where missing), and one column a metric. `live` is not read: the tree of segments is worked out from their
          first steps, the one with the highest number being the newest. The run is named by the caller.

Steps rise within a segment. Memory holds a block of rows, whatever the length of the file.
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

BIGGEST_DESCRIPTION = 2**31 - 1
"""Bytes of a Parquet footer; the default of 100 MB is less than a run with a million events needs."""

MAX_LEFT_OUT = 100
"""Numbers of segments without a step that a CSV may leave out between two that have some."""


class BadFile(ValueError):
    """The file cannot be imported: one sentence that says what is wrong, where, and how to mend it."""


def import_file(
    session: Session, *, path: Path, now: float, run_id: str | None = None, project: str | None = None
) -> tuple[Run, int]:
    """Import a file: (its run, the number of its steps). Raises BadFile, and record.RunExists; then nothing is kept.

    `run_id` is another id than the file's; by default a CSV's run is called like the file. `project` is a CSV's.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return _take_parquet(session, path, run_id)
        return _take_csv(session, path, run_id or path.stem, project or "imported", now)
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}; name one that `python -m db export` wrote, or a CSV") from None
    except (pa.ArrowException, csv.Error, OSError, UnicodeDecodeError, json.JSONDecodeError, record.BadRecord) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise BadFile(f"{path}: {reason.splitlines()[0]}") from error
    except sa.exc.IntegrityError as error:
        raise BadFile(f"{path}: the file contradicts itself: {first_line(error.orig)}") from error


def _take_parquet(session: Session, path: Path, run_id: str | None) -> tuple[Run, int]:
    with pyarrow.parquet.ParquetFile(path, thrift_string_size_limit=BIGGEST_DESCRIPTION) as file:
        text = (file.schema_arrow.metadata or {}).get(KEY)
        if text is None:
            raise BadFile(f"{path}: this Parquet file holds no run; write one with: python -m db export RUN")
        described = json.loads(text)
        run = record.restore(session, described, run_id=run_id)
        names: list[str] = described["metrics"]
        expected = ["segment", "step", "time", *map(column_of, names)]
        missing = [name for name in expected if name not in file.schema_arrow.names]
        if missing:
            raise BadFile(f"{path}: the column {missing[0]!r} is missing")
        batches = file.iter_batches(batch_size=MAX_BLOCK_STEPS, columns=expected)
        count = _Steps(session, path, run, names).take(batches)
        _check_whole(session, path, run, described)
    return run, count


def _check_whole(session: Session, path: Path, run: Run, described: dict[str, Any]) -> None:
    for segment, told in zip(queries.segments(session, run=run), described["segments"], strict=True):
        if segment.num_steps != told["num_steps"]:
            raise BadFile(
                f"{path}: segment {segment.number} has {segment.num_steps} steps, its description tells of "
                f"{told['num_steps']}; the file is damaged, export the run again"
            )


def _take_csv(session: Session, path: Path, run_id: str, project: str, now: float) -> tuple[Run, int]:
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
        steps = _Steps(session, path, run, names, now=now)
        count = steps.take(batches)
    run.started_at, run.last_report_at = steps.times or (now, now)
    run.finished_at = run.last_report_at
    return run, count


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    if "step" not in header:
        raise BadFile(f"{path}: no column `step`; the first line names the columns: step, and the metrics as wished")
    if twice := [name for name in header if header.count(name) > 1]:
        raise BadFile(f"{path}: two columns are called {twice[0]!r}")
    for column in header:
        name = metric_of(column)
        if name is not None and not is_name(name):
            raise BadFile(f"{path}: {name!r} cannot be the name of a metric; give the column 1 to 128 characters")
    return header


def _bare_run(run_id: str, project: str, now: float) -> dict[str, Any]:
    nothing: dict[str, Any] = {"config": {}, "devices": [], "versions": {}, "capabilities": [], "restorable_steps": []}
    times = {"started_at": now, "last_report_at": now, "finished_at": now}
    return {"id": run_id, "project": project, "state": RunState.FINISHED, **nothing, **times}


class _Steps:
    """Puts the steps of one file into a run, in the order of its rows; makes the segments that are not there."""

    def __init__(self, session: Session, path: Path, run: Run, names: list[str], now: float | None = None) -> None:
        self._session, self._path, self._run, self._names, self._now = session, path, run, names, now
        self._segments = {segment.number: segment for segment in queries.segments(session, run=run)}
        self._row = 0
        self.times: tuple[float, float] | None = None
        """The first and the last time of the file."""
        rollups.metric_numbers(session, run_pk=run.pk, names=names)

    def take(self, batches: Iterator[pa.RecordBatch]) -> int:
        """Insert all rows; their number."""
        for batch in batches:
            for block in self._blocks(batch):
                self._insert(block)
                self._row += len(block)
        return self._row

    def _blocks(self, batch: pa.RecordBatch) -> Iterator[StepBlock]:
        """The rows of a batch, cut where the segment changes."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        steps, segments = self._whole(columns, "step"), self._whole(columns, "segment", 0)
        times = self._times(columns, len(steps))
        metrics = {name: self._metric(name, columns[column_of(name)]) for name in self._names}
        edges = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(steps)]
        for first, last in itertools.pairwise(edges):
            if first < last:
                part = slice(first, last)
                cut = {name: column.at(part) for name, column in metrics.items()}
                yield StepBlock(int(segments[first]), steps[part], times[part], cut)

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
        """The segment of a block, made if the file is what tells of it."""
        if block.segment not in self._segments:
            if self._now is None:
                raise self._bad(0, f"there is no segment {block.segment} in the description")
            left_out = block.segment - len(self._segments)
            if left_out > MAX_LEFT_OUT:
                raise self._bad(0, f"segment {block.segment} leaves out {left_out} numbers; they count from 0")
            for number in range(len(self._segments), block.segment):
                self._segments[number] = self._open(number, None, block)  # it never reported a step
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
        """A column of counts, none of them missing."""
        if name not in columns:
            return np.full(len(columns["step"]), default, dtype=np.int64)
        numbers: Ints = columns[name].cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        self._refuse((numbers < 0) | (numbers >= 2**62), f"is missing or no number of a {name}", name)
        return numbers

    def _times(self, columns: dict[str, pa.Array], length: int) -> Floats:
        if "time" not in columns:
            return np.full(length, self._now, dtype=np.float64)
        times: Floats = columns["time"].cast(pa.float64()).to_numpy(zero_copy_only=False)
        self._refuse(~((times >= 0) & (times < 1e11)), "is missing or no time in unix seconds", "time")
        return times

    def _metric(self, name: str, column: pa.Array) -> MetricColumn:
        values: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        reported: Bools = column.is_valid().to_numpy(zero_copy_only=False)
        finite = np.isfinite(values) & reported
        if name in COUNTS:
            self._refuse(finite & (np.abs(values) >= MAX_COUNT), "is no count that a run can reach", column_of(name))
        return MetricColumn(values, reported, finite, bool(finite.all()))

    def _refuse(self, wrong: Bools, what: str, column: str) -> None:
        if wrong.any():
            raise self._bad(int(np.flatnonzero(wrong)[0]), f"{column} {what}")

    def _bad(self, at: int, what: str) -> BadFile:
        return BadFile(f"{self._path}: row {self._row + at + 1}: {what}; mend the file, nothing of it was imported")
