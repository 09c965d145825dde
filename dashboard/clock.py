"""Times in a viewer's time zone. Pure."""

import math
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import numpy as np

from dashboard.axes import Floats

DAY = 86_400.0
EARLIEST = datetime(1, 1, 1, tzinfo=UTC).timestamp() + DAY
LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp() - DAY
"""Unix seconds of the first and the last time that is a date in every time zone."""


def zone(name: str | None) -> tzinfo:
    """The time zone of this name; UTC where this machine knows no such zone."""
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):  # unknown, malformed, or the name of a folder
        return UTC


def moment(seconds: float, where: tzinfo, *, now: float | None = None) -> str:
    """Date and time; only hour and minute when `now` is on the same day."""
    then = local(seconds, where)
    today = now is not None and local(now, where).date() == then.date()
    return then.strftime("%H:%M") if today else then.isoformat(" ", "seconds")[:19]


def local(seconds: float, where: tzinfo) -> datetime:
    """Unix seconds as a date in a time zone; the nearest one that a calendar has, where a clock was far off."""
    if math.isnan(seconds):
        seconds = EARLIEST
    return datetime.fromtimestamp(min(max(seconds, EARLIEST), LATEST), where)


def on_clock(milliseconds: Floats, where: tzinfo) -> Floats:
    """Milliseconds since 1970, shifted to local time: plotly's date axes have no time zones."""
    offsets = [_offset(each / 1000, where) for each in milliseconds]
    return milliseconds + 1000 * np.array(offsets, dtype=np.float64)


def _offset(seconds: float, where: tzinfo) -> float:
    offset = local(seconds, where).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()
