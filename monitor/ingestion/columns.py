"""The columns of a report: from the wire's numbers and strings to arrays, and from stored rows to the same arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from db.steps.buckets import Floats, Ints
from db.steps.columns import MetricColumn
from db.steps.reader import StepBlock
from lossguard.metrics import COUNTS
from lossguard.protocol import decode_number
from monitor.detection import Rows
from monitor.problems import bad_report
from monitor.schemas import ReportIn

WATCHED = ("loss", "grad_norm", "log_z", "lr", "batch_index", "tokens")
"""What the detection is shown; the other metrics are stored and drawn."""


def decode(report: ReportIn) -> dict[str, MetricColumn]:
    """The report's metrics as numbers (NaN and infinities included). Raises Problem with the metric and the index."""
    num_steps = len(report.steps)
    if len(report.times) != num_steps:
        raise bad_report(f"times has {len(report.times)} entries for {num_steps} steps", "times")
    if num_steps > 1 and (falls := np.flatnonzero(np.diff(np.array(report.steps)) <= 0)).size:
        index = int(falls[0]) + 1
        detail = f"step {report.steps[index]} follows {report.steps[index - 1]}; the steps of a segment only rise"
        raise bad_report(detail, "steps", index)
    return {name: _decode_column(name, values, num_steps) for name, values in report.metrics.items()}


PLAIN = ({float}, {int}, {int, float})
"""Types of nearly every column; the rest is looked at one by one."""


def _decode_column(name: str, values: Sequence[Any], num_steps: int) -> MetricColumn:
    column = _numbers(name, values, num_steps)
    if name in COUNTS:
        with np.errstate(invalid="ignore"):
            beyond = np.flatnonzero(np.isfinite(column.values) & (np.abs(column.values) >= 2.0**63))
        if beyond.size:
            index = int(beyond[0])
            detail = f"metric {name!r} at index {index}: {values[index]!r} is no count that a run can reach"
            raise bad_report(detail, "metrics", name, index)
    return column


def _numbers(name: str, values: Sequence[Any], num_steps: int) -> MetricColumn:
    if len(values) != num_steps:
        raise bad_report(f"metric {name!r} has {len(values)} values for {num_steps} steps", "metrics", name)
    try:
        if set(map(type, values)) in PLAIN:
            return MetricColumn.of(values)
    except OverflowError:
        pass  # an integer beyond every float: below it is told which
    column: list[float | None] = []
    for index, value in enumerate(values):
        try:
            column.append(decode_number(value))
        except (ValueError, OverflowError) as error:
            raise bad_report(f"metric {name!r} at index {index}: {error}", "metrics", name, index) from None
    return MetricColumn.of(column)


def rows(steps: Sequence[int] | Ints, times: Sequence[float] | Floats, metrics: Mapping[str, MetricColumn]) -> Rows:
    """What the detection sees of these steps."""
    watched = {name: metrics[name] for name in WATCHED if name in metrics}
    return Rows(
        steps=np.asarray(steps, dtype=np.int64),
        metrics={name: column.values for name, column in watched.items()},
        present={name: column.reported for name, column in watched.items()},
        times=np.asarray(times, dtype=np.float64),
    )


def stored_rows(block: StepBlock) -> Rows:
    """The same for steps that the store holds."""
    reported = {name: column for name, column in block.metrics.items() if column.reported.any()}
    return rows(block.steps, block.times, reported)
