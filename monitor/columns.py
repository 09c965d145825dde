"""The columns of a report: from the wire's numbers and strings to arrays, and from stored rows to the same arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from db.models import Step
from db.step_rows import metric_value
from lossguard.protocol import decode_number
from monitor.detection import Rows
from monitor.problems import bad_report
from monitor.schemas import ReportIn

WATCHED = ("loss", "grad_norm", "log_z", "lr", "batch_index", "tokens")
"""What the detection is shown; the other metrics are stored and drawn."""

Column = list[float | None]


def decode(report: ReportIn) -> dict[str, Column]:
    """The report's metrics as numbers (NaN and infinities included). Raises Problem with the metric and the index."""
    num_steps = len(report.steps)
    if len(report.times) != num_steps:
        raise bad_report(f"times has {len(report.times)} entries for {num_steps} steps", "times")
    for index in range(1, num_steps):
        if report.steps[index] <= report.steps[index - 1]:
            detail = f"step {report.steps[index]} follows {report.steps[index - 1]}; the steps of a segment only rise"
            raise bad_report(detail, "steps", index)
    return {name: _decode_column(name, values, num_steps) for name, values in report.metrics.items()}


def _decode_column(name: str, values: Sequence[Any], num_steps: int) -> Column:
    if len(values) != num_steps:
        raise bad_report(f"metric {name!r} has {len(values)} values for {num_steps} steps", "metrics", name)
    if set(map(type, values)) == {float}:  # nearly every column; the rest is looked at one by one
        return list(values)
    column: Column = []
    for index, value in enumerate(values):
        try:
            column.append(decode_number(value))
        except (ValueError, OverflowError) as error:
            raise bad_report(f"metric {name!r} at index {index}: {error}", "metrics", name, index) from None
    return column


def rows(steps: Sequence[int], times: Sequence[float], metrics: Mapping[str, Sequence[float | None]]) -> Rows:
    """What the detection sees of these steps."""
    watched = {name: metrics[name] for name in WATCHED if name in metrics}
    return Rows(
        steps=np.asarray(steps, dtype=np.int64),
        metrics={name: np.array(column, dtype=np.float64) for name, column in watched.items()},
        present={name: np.array([value is not None for value in column]) for name, column in watched.items()},
        times=np.asarray(times, dtype=np.float64),
    )


def stored_rows(steps: Sequence[Step]) -> Rows:
    """The same of steps that the store holds."""
    metrics = {name: [metric_value(step, name) for step in steps] for name in WATCHED}
    reported = {name: column for name, column in metrics.items() if any(value is not None for value in column)}
    return rows([step.step for step in steps], [step.time for step in steps], reported)
