"""State of a page in its URL, so that a link or a reload shows the same.

Widgets write themselves into the URL: give them `key="name", bind="query-params"`. This module holds what no widget
does: `?run=ID`, the steps in view `?steps=FIRST-LAST` or `?last=10%`, the value axes
`?log=METRIC,METRIC&linear=..&fit-all=..`, and of the Compare page `?runs=ID,ID:SEGMENT&baseline=ID` and `&view=A-B`.
What a viewer did to a chart is in `?hidden=..&collapsed=..&y=..` (views/chart.py).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote, urlencode

import streamlit as st

from dashboard.axes import AxisChoices

STEP_DIGITS, VIEW_DIGITS = 15, 30
"""Maximum digits of a step, and of an end of the Compare page's x axis: numbers of FLOPs are long."""


def run() -> str | None:
    return st.query_params.get("run")


def set_run(run_id: str) -> None:
    st.query_params["run"] = run_id


def change_run(run_id: str) -> None:
    """Name another run, without what the URL says about the steps, values and incidents of the present one."""
    for name in ("steps", "last", "y", "incident"):
        st.query_params.pop(name, None)
    set_run(run_id)


def steps() -> tuple[int, int] | None:
    """First and last step in view; None for the whole run, or if the URL holds no valid range."""
    return range_in(st.query_params.get("steps", ""), STEP_DIGITS)


def set_steps(window: tuple[float, float] | None) -> None:
    """Set the steps in view; None for the whole run."""
    _set_range("steps", window)


def last() -> str | None:
    """The newest part of the run that stays in view, such as "1000" steps or "10%"; None for all or another range."""
    text = st.query_params.get("last", "")
    return text if re.fullmatch("[0-9]{1,9}%?", text) else None


def view() -> tuple[int, int] | None:
    """The range in view of the Compare page's x axis, in its units; None for all of it."""
    return range_in(st.query_params.get("view", ""))


def set_view(window: tuple[float, float] | None) -> None:
    _set_range("view", window)


def axis_choices() -> AxisChoices:
    return AxisChoices(log=_names("log"), linear=_names("linear"), fit_all=_names("fit-all"))


def set_axis_choices(choices: AxisChoices) -> None:
    for name, metrics in (("log", choices.log), ("linear", choices.linear), ("fit-all", choices.fit_all)):
        if metrics:
            st.query_params[name] = ",".join(quote(metric, safe="/ ") for metric in sorted(metrics))
        else:
            st.query_params.pop(name, None)


def _names(name: str) -> frozenset[str]:
    """Names of metrics, which may hold commas."""
    return frozenset(unquote(part) for part in st.query_params.get(name, "").split(",") if part)


def incident_url(run_id: str, incident_number: int) -> str:
    """The address of an incident's page, on this server."""
    return f"/incident?{urlencode({'run': run_id, 'incident': incident_number})}"


def number(name: str) -> int | None:
    """A number below 10^9; None if there is none, or no valid one."""
    text = st.query_params.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def set_number(name: str, value: int) -> None:
    st.query_params[name] = str(value)


def text(name: str) -> str | None:
    """The value of a parameter as it stands in the URL."""
    return st.query_params.get(name)


def texts(name: str) -> list[str]:
    """Return all values of a parameter, which may stand in the URL several times."""
    return list(st.query_params.get_all(name))


def set_texts(name: str, values: Iterable[str]) -> None:
    """Set all values of a parameter; none removes it."""
    values = list(values)
    if values:
        st.query_params[name] = values
    else:
        st.query_params.pop(name, None)


def range_in(written: str, digits: int = VIEW_DIGITS) -> tuple[int, int] | None:
    """The ends in a text such as "100-200"; None if it is no valid range."""
    match = re.fullmatch(rf"([0-9]{{1,{digits}}})-([0-9]{{1,{digits}}})", written)
    return None if match is None or int(match[1]) >= int(match[2]) else (int(match[1]), int(match[2]))


def ranges_in(written: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Ranges by metric, of texts such as "loss:1.5..3"; invalid ones are left out."""
    found = {}
    for text in written:
        metric, _, bounds = text.rpartition(":")
        try:
            low, high = map(float, bounds.split(".."))
        except ValueError:
            continue
        if metric and low < high and math.isfinite(high - low):
            found[metric] = (low, high)
    return found


def set_ranges(name: str, by_metric: Mapping[str, Sequence[float]]) -> None:
    set_texts(name, [f"{metric}:{low:.6g}..{high:.6g}" for metric, (low, high) in by_metric.items()])


def _set_range(name: str, window: tuple[float, float] | None) -> None:
    if window is None:
        st.query_params.pop(name, None)
        return
    first = max(0, int(window[0]))
    st.query_params[name] = f"{first}-{max(first + 1, int(window[1]))}"
