"""An incident in numbers: what was expected, how bad it was, and how it is now. Pure."""

import numpy as np
import pandas as pd

from dashboard import formatting
from dashboard.data.incident_window import IncidentWindow
from dashboard.figures.axis import Floats
from db.models import Incident
from lossguard.metrics import short_name

AFTER = 20
"""Steps that say how it is now: the median of the last of them that are shown."""


def before_and_after(seen: IncidentWindow, incident: Incident) -> pd.DataFrame:
    """One row per signal."""
    return pd.DataFrame(_row(name, seen, incident) for name in seen.bands)


def _row(name: str, seen: IncidentWindow, incident: Incident) -> dict[str, str]:
    band, steps = seen.bands[name], seen.original.steps
    values = seen.original.metrics[name]
    end = incident.end_step if incident.end_step is not None else steps[-1]
    onset = int(np.searchsorted(steps, incident.onset_step))
    bad = slice(onset, int(np.searchsorted(steps, end, side="right")))
    seen_at_onset = steps[0] <= incident.onset_step <= steps[-1]
    expected, low, high = (
        formatting.number(_facts(column[onset]) if seen_at_onset else None)
        for column in (band.expected, band.low, band.high)
    )
    return {
        "Signal": short_name(name),
        "Expected at onset": expected,
        "Band at onset": f"{low} .. {high}" if seen_at_onset else "-",
        "Farthest in the incident": _farthest(values[bad], band.expected[bad]),
        "Highest score": formatting.number(float(np.max(band.score[bad])) if len(values[bad]) else None),
        "Now": _now(name, seen),
    }


def _farthest(values: Floats, expected: Floats) -> str:
    """The value farthest from what was expected at its step; one that is not finite is farther than any."""
    broken = values[~np.isfinite(values)]
    if len(broken):
        return formatting.number(float(broken[0]))
    distance = np.abs(values - expected)
    return formatting.number(float(values[np.nanargmax(distance)])) if np.isfinite(distance).any() else "-"


def _now(name: str, seen: IncidentWindow) -> str:
    rows = seen.original if seen.replacement is None or name not in seen.replacement.metrics else seen.replacement
    last = rows.metrics[name][-AFTER:]
    finite = last[np.isfinite(last)]
    return formatting.number(float(np.median(finite))) if len(finite) else "-"


def _facts(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
