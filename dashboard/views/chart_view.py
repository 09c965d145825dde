"""A viewer's changes to a chart, kept in the URL: the range in view or ?last=STEPS, and
?hidden=ENTRY&collapsed=METRIC&y=METRIC:LOW..HIGH.

The chart reports all of it at once (figures/chart_view.js). A message of the browser may have a URL that is older than
the last report: while the server answers a zoom, the next automatic refresh is already on its way with the URL from
before it. `shown` knows such a URL from before, and restores the newer one. A URL that it has not seen, and the one of
the browser's back button, is what the viewer wants to see.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard import streamlit_internals, url_state
from dashboard.figures import component
from dashboard.views import url_warning

HIDDEN, COLLAPSED, ZOOMED, LAST = "hidden", "collapsed", "y", "last"
RECORDS = "chart_views"
"""Key in the session: the record of each chart, by the chart's key."""
MAX_KNOWN = 64

Parameters = tuple[tuple[str, ...], ...]
"""The values of the chart's parameters in the URL."""


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """State of the URL after a chart's last report."""

    x: list[float] | None
    """The range of the report, in units of the x axis; [] for all of it, None where the viewer has not zoomed."""
    parameters: Parameters
    known: tuple[Parameters, ...]
    """Earlier ones, and these."""


def shown(key: str, range_name: str) -> dict[str, Any]:
    """Return the URL's state of a chart, as component.js takes it; `range_name` is the parameter of the range in view.

    Call it before the URL is read: it restores what an older URL does not have.
    """
    viewed, record = component.viewed(key), _records().get(key)
    if record is not None and not _is_valid(record, range_name, viewed):
        forget(key)
        record = None
    if record is not None:
        _set_parameters(range_name, record.parameters)
    _warn_of_invalid(range_name)
    return {
        "answers": viewed.get("turn", 0),
        "link": None if record is not None else repr(_parameters(range_name)),
        "hidden": url_state.texts(HIDDEN),
        "collapsed": url_state.texts(COLLAPSED),
        "y": url_state.ranges_in(url_state.texts(ZOOMED)),
    }


def save(
    key: str, range_name: str, set_range: Callable[[tuple[float, float] | None], None], *, last: str | None = None
) -> None:
    """Write the chart's newest report to the URL; `set_range` is called with a new range in units of the x axis.

    `last`: the newest part of the run that stays in view from now on, in place of a range.
    """
    viewed, record = component.viewed(key), _records().get(key)
    before = _parameters(range_name)
    if record is not None and before in record.known:
        _set_parameters(range_name, record.parameters)
    x = viewed.get("x")
    if x is not None and (record is None or x != record.x):
        set_range((float(x[0]), float(x[1])) if x else None)
    if last:
        set_range(None)
    url_state.set_texts(LAST, [last] if last else [])
    url_state.set_texts(HIDDEN, viewed.get("hidden", []))
    url_state.set_texts(COLLAPSED, viewed.get("collapsed", []))
    url_state.set_ranges(ZOOMED, viewed.get("y", {}))
    after = _parameters(range_name)
    known = (*(record.known if record is not None else ()), before, after)
    _records()[key] = ViewRecord(x, after, known[-MAX_KNOWN:])


def forget(key: str) -> None:
    """Let the URL decide until the chart's next report."""
    _records().pop(key, None)


def _records() -> dict[str, ViewRecord]:
    records: dict[str, ViewRecord] = st.session_state.setdefault(RECORDS, {})
    return records


def _is_valid(record: ViewRecord, range_name: str, viewed: dict[str, Any]) -> bool:
    return bool(viewed) and not streamlit_internals.is_history_navigation() and _parameters(range_name) in record.known


def _warn_of_invalid(range_name: str) -> None:
    text = url_state.text(range_name)
    if text is not None and not url_state.is_range(text):
        url_warning.warn(range_name, text, "The whole range is shown. Give two numbers, such as 1000-2000.")
    for text in url_state.texts(ZOOMED):
        if not url_state.ranges_in([text]):
            url_warning.warn(ZOOMED, text, "Give a metric and two numbers, such as loss:1.5..3.")


def _parameters(range_name: str) -> Parameters:
    return tuple(tuple(url_state.texts(name)) for name in (range_name, HIDDEN, COLLAPSED, ZOOMED, LAST))


def _set_parameters(range_name: str, parameters: Parameters) -> None:
    for name, texts in zip((range_name, HIDDEN, COLLAPSED, ZOOMED, LAST), parameters, strict=True):
        if tuple(url_state.texts(name)) != texts:
            url_state.set_texts(name, texts)
