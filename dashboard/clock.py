"""Times in a viewer's time zone. Pure."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import numpy as np

from dashboard.figures.axis import Floats


def zone(name: str | None) -> tzinfo:
    """The time zone of this name; UTC where this machine knows no such zone."""
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):  # unknown, malformed, or the name of a folder
        return UTC


def moment(seconds: float, where: tzinfo, *, now: float | None = None) -> str:
    """Date and time; only hour and minute when `now` is on the same day."""
    then = datetime.fromtimestamp(seconds, where)
    today = now is not None and datetime.fromtimestamp(now, where).date() == then.date()
    return then.strftime("%H:%M" if today else "%Y-%m-%d %H:%M:%S")


def on_clock(milliseconds: Floats, where: tzinfo) -> Floats:
    """Milliseconds since 1970, shifted to local time: plotly's date axes have no time zones."""
    offsets = [_offset(each / 1000, where) for each in milliseconds]
    return milliseconds + 1000 * np.array(offsets, dtype=np.float64)


def _offset(seconds: float, where: tzinfo) -> float:
    offset = datetime.fromtimestamp(seconds, where).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()
