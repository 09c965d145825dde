"""The time per step of an incident's rows, which its figure shows where the speed of the run is what is wrong. Pure."""

from dataclasses import replace

import numpy as np

from dashboard.data.incident_window import IncidentWindow
from monitor.detection import Rows

STEP_SECONDS = "step_seconds"


def with_step_times(shown: IncidentWindow) -> IncidentWindow:
    """Add the time per step as a metric; without scores, which are those of the signals."""
    replacement = None if shown.replacement is None else _with_step_times(shown.replacement)
    return replace(shown, original=_with_step_times(shown.original), replacement=replacement, bands={})


def _with_step_times(rows: Rows) -> Rows:
    """The time since the row before, per step; the first row has none."""
    if rows.times is None or not len(rows):
        return rows
    seconds = np.diff(rows.times, prepend=np.nan) / np.diff(rows.steps, prepend=0)
    seconds[~(seconds >= 0)] = np.nan
    metrics = {**rows.metrics, STEP_SECONDS: seconds}
    present = {**rows.present, STEP_SECONDS: np.isfinite(seconds)}
    return Rows(rows.steps, metrics, present, rows.times)
