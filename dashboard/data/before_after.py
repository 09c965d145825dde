"""An incident in numbers: expected value and band, most extreme value, score, and the value now. Pure."""

import numpy as np
import pandas as pd

from dashboard import formatting
from dashboard.axes import Floats
from dashboard.data.incident_window import IncidentWindow
from db.models import Incident
from lossguard.vocabulary.metrics import short_name

RECENT_STEPS = 20
"""The value now is the median of the last steps shown, so many of them."""


def before_and_after(shown: IncidentWindow, incident: Incident) -> pd.DataFrame:
    """One row per signal."""
    return pd.DataFrame(_row(name, shown, incident) for name in shown.bands)


def _row(name: str, shown: IncidentWindow, incident: Incident) -> dict[str, str]:
    band, steps = shown.bands[name], shown.original.steps
    values = shown.original.metrics[name]
    end = incident.end_step if incident.end_step is not None else steps[-1]
    onset = int(np.searchsorted(steps, incident.onset_step))
    during = slice(onset, int(np.searchsorted(steps, end, side="right")))
    onset_shown = steps[0] <= incident.onset_step <= steps[-1]
    expected, low, high = (
        formatting.number(_none_if_nan(column[onset]) if onset_shown else None)
        for column in (band.expected, band.low, band.high)
    )
    return {
        "Signal": short_name(name),
        "Expected at onset": expected,
        "Band at onset": f"{low} .. {high}" if onset_shown else "-",
        "Most extreme value": _most_extreme(values[during], band.expected[during]),
        "Highest score": formatting.number(float(np.max(band.score[during])) if len(values[during]) else None),
        "Now": _now(name, shown),
    }


def _most_extreme(values: Floats, expected: Floats) -> str:
    """The value farthest from its expectation; one that is not finite is farther than any other."""
    non_finite = values[~np.isfinite(values)]
    if len(non_finite):
        return formatting.number(float(non_finite[0]))
    distance = np.abs(values / 2 - expected / 2)  # halves: the difference of two huge values would overflow
    return formatting.number(float(values[np.nanargmax(distance)])) if np.isfinite(distance).any() else "-"


def _now(name: str, shown: IncidentWindow) -> str:
    rows = shown.replacement
    if rows is None or name not in rows.metrics:
        rows = shown.original
    recent = rows.metrics[name][-RECENT_STEPS:]
    finite = recent[np.isfinite(recent)]
    return formatting.number(2 * float(np.median(finite / 2))) if len(finite) else "-"


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
