"""Insert the steps of one imported file into a run, in the order of its rows."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from sqlalchemy.orm import Session

from db import commands, queries
from db.files.rules import BadRecord
from db.models import Run, Segment
from db.steps import rollups, writer
from db.steps.reader import MAX_BLOCK_STEPS
from db.steps.step_block import Bools, Floats, Ints, MetricColumn, StepBlock, column_of
from lossguard.vocabulary.metrics import COUNTS
from lossguard.vocabulary.protocol import MAX_COUNT, MAX_STEP, MAX_TIME
from lossguard.vocabulary.states import SegmentReason

MAX_MISSING_SEGMENTS = 100
"""Maximum numbers of segments that a CSV may leave out before one that has steps."""
MAX_SEGMENT = 2**31 - 1


class StepImport:
    """Inserts batches of rows, and creates the segments that the file does not describe.

    A batch has whole numbers in `step` and, if it is there, `segment`; numbers in `time` and in the columns of metrics.
    """

    def __init__(
        self, session: Session, run: Run, names: list[str], *, place: Callable[[int], str], now: float | None = None
    ) -> None:
        """`names`: of the metrics. `place` names a row, counted from 1, in messages. With `now`, segments that do not
        exist are created, and it is the time of steps without one."""
        self._session, self._run, self._names, self._place, self._now = session, run, names, place, now
        self._segments = {segment.number: segment for segment in queries.segments(session, run=run)}
        self._row = 0
        self.times: tuple[float, float] | None = None
        """The first and the last time in the file."""
        rollups.metric_numbers(session, run_pk=run.pk, names=names)

    def insert_all(self, batches: Iterator[pa.RecordBatch]) -> int:
        """Insert all rows: their number. Raises BadRecord for one that no report could have brought."""
        for batch in batches:
            for start in range(0, len(batch), MAX_BLOCK_STEPS):
                for block in self._blocks(batch.slice(start, MAX_BLOCK_STEPS)):
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
            segment=segment,
            steps=steps,
            times=block.times.tolist(),
            metrics=block.metrics,
        )
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
        return commands.open_segment(
            self._session,
            run=self._run,
            key=f"imported-{number}",
            fork_step=first,
            reason=reason if number else SegmentReason.START,
            order_id=None,
            opened_at=max(opened, float(block.times[0])),  # so that the highest number is the newest
        )

    def _whole(self, columns: dict[str, pa.Array], name: str, default: int | None = None) -> Ints:
        """A column of whole numbers from 0, none of them missing."""
        if name not in columns:
            return np.full(len(columns["step"]), default, dtype=np.int64)
        numbers: Ints = columns[name].cast(pa.int64(), safe=False).fill_null(-1).to_numpy(zero_copy_only=False)
        largest = MAX_STEP - 1 if name == "step" else MAX_SEGMENT
        self._refuse((numbers < 0) | (numbers > largest), f"is missing or not the number of a {name}", name)
        return numbers

    def _times(self, columns: dict[str, pa.Array], length: int) -> Floats:
        if "time" not in columns:
            return np.full(length, self._now, dtype=np.float64)
        times = _floats(columns["time"])
        self._refuse(~((times >= 0) & (times < MAX_TIME)), "is missing or not a time in unix seconds", "time")
        return times

    def _metric(self, name: str, column: pa.Array) -> MetricColumn:
        values = _floats(column)
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

    def _bad(self, at: int, what: str) -> BadRecord:
        return BadRecord(f"{self._place(self._row + at + 1)}: {what}")


def _floats(column: pa.Array) -> Floats:
    """float64[N], the nearest ones to large whole numbers; NaN for null."""
    values: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values
