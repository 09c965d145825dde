"""Steps as columns: from the numbers and strings of a report to arrays, and from stored rows to the same arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from db.steps.step_block import Floats, Ints, MetricColumn, StepBlock
from lossguard.vocabulary.metrics import COUNTS, detector_inputs
from lossguard.vocabulary.protocol import MAX_COUNT, decode_number
from lossguard.vocabulary.wording import plural
from monitor.detection import Row, Rows
from monitor.problems import bad_report
from monitor.schemas import ReportIn


@dataclass(frozen=True, slots=True)
class StepColumns:
    """N steps of one segment: steps[N] rise, times[N] are unix seconds, and every metric has N values."""

    steps: Sequence[int] = ()
    times: Sequence[float] = ()
    metrics: Mapping[str, MetricColumn] = field(default_factory=dict)

    def between(self, first: int, last: int) -> "StepColumns":
        """The steps at positions [first, last)."""
        if (first, last) == (0, len(self.steps)):
            return self
        metrics = {name: column.at(slice(first, last)) for name, column in self.metrics.items()}
        return StepColumns(self.steps[first:last], self.times[first:last], metrics)

    def without(self, known: set[int]) -> "StepColumns":
        """The steps that are not among `known`."""
        if not known:
            return self
        positions = [position for position, step in enumerate(self.steps) if step not in known]
        return StepColumns(
            [self.steps[position] for position in positions],
            [self.times[position] for position in positions],
            {name: column.at(np.array(positions, dtype=np.int64)) for name, column in self.metrics.items()},
        )


def decode(report: ReportIn) -> StepColumns:
    """The report's steps as numbers, NaN and infinities included. Raises Problem 422 with the metric and the index."""
    num_steps = len(report.steps)
    if len(report.times) != num_steps:
        entries = plural(len(report.times), "entry", "entries")
        raise bad_report(f"times has {entries} for {plural(num_steps, 'step')}", "times")
    if num_steps > 1 and (falls := np.flatnonzero(np.diff(np.array(report.steps)) <= 0)).size:
        index = int(falls[0]) + 1
        detail = f"step {report.steps[index]} follows {report.steps[index - 1]}; the steps of a report must increase"
        raise bad_report(detail, "steps", index)
    metrics = {name: _decode_column(name, values, num_steps) for name, values in report.metrics.items()}
    return StepColumns(report.steps, report.times, metrics)


def _decode_column(name: str, values: Sequence[Any], num_steps: int) -> MetricColumn:
    if len(values) != num_steps:
        found, expected = plural(len(values), "value"), plural(num_steps, "step")
        raise bad_report(f"metric {name!r} has {found} for {expected}", "metrics", name)
    column = _numbers(name, values)
    if name in COUNTS:
        with np.errstate(invalid="ignore"):
            too_large = np.flatnonzero(np.isfinite(column.values) & (np.abs(column.values) >= float(MAX_COUNT)))
        if too_large.size:
            index = int(too_large[0])
            detail = (
                f"metric {name!r} at index {index}: {values[index]!r} is too large for a count (it must fit 64 bits)"
            )
            raise bad_report(detail, "metrics", name, index)
    return column


NUMBER_TYPES = ({float}, {int}, {int, float})
"""Types of the values of nearly every column: these are converted at once, any other column value by value."""


def _numbers(name: str, values: Sequence[Any]) -> MetricColumn:
    try:
        if set(map(type, values)) in NUMBER_TYPES:
            return MetricColumn.of(values)
    except OverflowError:
        pass  # an integer beyond the range of floats: the loop below finds its index
    column: list[float | None] = []
    for index, value in enumerate(values):
        try:
            column.append(decode_number(value))
        except (ValueError, OverflowError) as error:
            raise bad_report(f"metric {name!r} at index {index}: {error}", "metrics", name, index) from None
    return MetricColumn.of(column)


def detector_rows(
    steps: Sequence[int] | Ints, times: Sequence[float] | Floats, metrics: Mapping[str, MetricColumn]
) -> Rows:
    """The input of the detection for these steps; the other metrics are stored and drawn only."""
    inputs = {name: metrics[name] for name in detector_inputs(metrics) if name in metrics}
    return Rows(
        steps=np.asarray(steps, dtype=np.int64),
        metrics={name: column.values for name, column in inputs.items()},
        present={name: column.reported for name, column in inputs.items()},
        times=np.asarray(times, dtype=np.float64),
    )


def detector_row(step: int, time: float, metrics: Mapping[str, MetricColumn]) -> Row | None:
    """Return the row of a single step; None if one of its metrics was not reported."""
    inputs = {name: metrics[name] for name in detector_inputs(metrics) if name in metrics}
    if not all(column.plain or column.reported.item() for column in inputs.values()):
        return None
    return Row(step, {name: column.values.item() for name, column in inputs.items()}, float(time))


def stored_rows(block: StepBlock) -> Rows:
    """Return the detector's rows of steps from the store."""
    reported = {name: column for name, column in block.metrics.items() if column.reported.any()}
    return detector_rows(block.steps, block.times, reported)
