"""The values of a chart that are in view, as a CSV file that is written while it is read.

One row for each metric and bucket (or step): `metric,branch,segment,first_step,last_step,mean,min,max,last,count,
non_finite`. `branch` is "live" or "discarded". Up to MAX_FULL_STEPS steps are written one by one, as they were reported
(`nan`, `inf` and `-inf` included), more as the buckets that the chart draws: `mean` to `last` are then of the finite
values, and `nan` where there is none. `count` and `non_finite` are the numbers of finite and of other values. A metric
that a spreadsheet would take for a formula begins with an apostrophe.
"""

import csv
import io
import math
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from dashboard.data import curve_reader
from dashboard.data.cached import MAX_POINTS
from dashboard.data.curve_reader import CurveReader
from dashboard.data.store import open_store
from db import lineage, queries
from db.lineage import END, StepRange
from db.models import Run, Segment
from db.queries import Series
from db.steps import reader
from lossguard.client.tables import safe_name

VALUES_ROUTE = "/lossguard/values/"
"""Route on which server.py serves the files."""
MAX_FULL_STEPS = 100_000
MAX_FILES = 1024
"""Files that can be downloaded at a time; the least recently shown ones are dropped."""
ROWS_AT_ONCE = 5_000
HEADER = "metric,branch,segment,first_step,last_step,mean,min,max,last,count,non_finite\n"

Row = tuple[Any, ...]
"""The columns from `segment` on."""


@dataclass(frozen=True, slots=True)
class ValuesFile:
    database: str
    """URL of the store."""
    run_id: str
    metrics: tuple[str, ...]
    window: tuple[int, int] | None
    """First and last step in view; None for the whole run."""
    discarded: bool
    """True if discarded branches are in it."""

    @property
    def name(self) -> str:
        """Name of the file on the viewer's disk."""
        steps = "" if self.window is None else f"-steps-{self.window[0]}-{self.window[1]}"
        return re.sub(r"[^\w.-]+", "-", self.run_id, flags=re.ASCII) + f"{steps}.csv"

    def chunks(self) -> Iterator[str]:
        """The text, a piece at a time. Raises StoreUnavailable."""
        yield HEADER
        with open_store(self.database) as session:
            run = queries.run_named(session, run_id=self.run_id)
            if run is None:
                return
            segments = queries.segments(session, run=run)
            branches = {"live": [lineage.live_line(segments)]}
            if self.discarded:
                branches["discarded"] = [[step_range] for step_range in lineage.discarded(segments)]
            is_full = self._num_steps(segments) <= MAX_FULL_STEPS
            for metric in self.metrics:
                for branch, lines in branches.items():
                    rows = self._rows(session, run, metric, lines, is_full)
                    while some := list(islice(rows, ROWS_AT_ONCE)):
                        text = io.StringIO()
                        csv.writer(text, lineterminator="\n").writerows(
                            (safe_name(metric), branch, *row) for row in some
                        )
                        yield text.getvalue()

    def _num_steps(self, segments: Sequence[Segment]) -> int:
        """Return the number of steps in view, of all segments."""
        low, high = self.window or (0, END)
        ends = [(one.first_step, one.last_step) for one in segments]
        return sum(
            max(0, min(last, high) - max(first, low) + 1)
            for first, last in ends
            if first is not None and last is not None
        )

    def _rows(
        self, session: Session, run: Run, metric: str, lines: Sequence[Sequence[StepRange]], is_full: bool
    ) -> Iterator[Row]:
        """Yield the rows of one metric on these lines, each of which the chart divides into buckets by itself."""
        max_points = 2 * MAX_FULL_STEPS if is_full else MAX_POINTS
        curves = CurveReader(session, run, self.window, max_points)
        for line in lines:
            if is_full and metric != curve_reader.THROUGHPUT:
                for step_range in line:
                    yield from self._steps(session, run, metric, step_range)
            else:
                yield from _buckets(curves.series([metric], line)[metric], line)

    def _steps(self, session: Session, run: Run, metric: str, step_range: StepRange) -> Iterator[Row]:
        low, high = self.window or (0, END - 1)
        last = high + 1 if step_range.last is None else min(step_range.last, high + 1)
        in_view = StepRange(step_range.segment, max(step_range.first, low), last)
        for block in reader.read_blocks(session, run_pk=run.pk, step_range=in_view, metrics=[metric]):
            column = block.metrics[metric]
            for step, value, reported in zip(
                block.steps.tolist(), column.values.tolist(), column.reported, strict=True
            ):
                if reported:
                    finite = math.isfinite(value)
                    yield (block.segment, step, step, value, value, value, value, int(finite), int(not finite))


def _buckets(series: Series, line: Sequence[StepRange]) -> Iterator[Row]:
    columns = (series.mean, series.min, series.max, series.last)
    for index, first in enumerate(series.first_step):
        segment = next(step_range.segment for step_range in line if step_range.holds(first))
        mean, low, high, last = (math.nan if column[index] is None else column[index] for column in columns)
        counts = series.count[index], series.non_finite[index]
        yield (segment, first, series.last_step[index], mean, low, high, last, *counts)


class ValuesFiles:
    """The files that can be downloaded, by names that nobody can guess: only who was shown a chart knows its file."""

    def __init__(self, max_files: int = MAX_FILES) -> None:
        self._max_files = max_files
        self._names: OrderedDict[ValuesFile, str] = OrderedDict()
        self._lock = threading.Lock()

    def name(self, file: ValuesFile) -> str:
        with self._lock:
            name = self._names.setdefault(file, secrets.token_urlsafe(24))
            self._names.move_to_end(file)
            while len(self._names) > self._max_files:
                self._names.popitem(last=False)
            return name

    def get(self, name: str) -> ValuesFile | None:
        asked = name.encode(errors="replace")  # of text, `compare_digest` takes ASCII alone
        with self._lock:
            found = (file for file, known in self._names.items() if secrets.compare_digest(known.encode(), asked))
            return next(found, None)


values_files = ValuesFiles()
