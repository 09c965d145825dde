"""What a page shows, in its URL, so that a link or a reload shows the same.

Widgets write themselves into the URL: give them `key="name", bind="query-params"`. Here is what no widget holds:
`?run=ID` and the steps in view, `?steps=FIRST-LAST`; of several runs `?runs=ID,ID:SEGMENT&baseline=ID&view=A-B`.
"""

import re
from collections.abc import Sequence

import streamlit as st

from dashboard.views.compare import entries
from dashboard.views.compare.entries import Choice

_STEPS = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")
_VIEW = re.compile(r"([0-9]{1,30})-([0-9]{1,30})")  # FLOPs are many


def run() -> str | None:
    """The run that the URL names."""
    return st.query_params.get("run")


def choose_run(run_id: str) -> None:
    st.query_params["run"] = run_id


def steps() -> tuple[int, int] | None:
    """First and last step in view; None for the whole run, also when the URL makes no sense."""
    return _range("steps", _STEPS)


def choose_steps(window: tuple[float, float] | None) -> None:
    """Keep these steps in view; None for the whole run."""
    if window is None:
        st.query_params.pop("steps", None)
        return
    st.query_params["steps"] = _range_text(window)


def view() -> tuple[int, int] | None:
    """The range in view along an axis of several runs, in its units; None for all of it."""
    return _range("view", _VIEW)


def choose_view(window: tuple[float, float] | None) -> None:
    if window is None:
        st.query_params.pop("view", None)
        return
    st.query_params["view"] = _range_text(window)


def choices() -> list[Choice] | None:
    """What the URL wants compared; None when it does not say."""
    return entries.choices(st.query_params["runs"]) if "runs" in st.query_params else None


def choose(chosen: Sequence[str]) -> None:
    """Compare these."""
    st.query_params["runs"] = ",".join(chosen)


def baseline() -> str | None:
    """Which of them the others are compared with."""
    return st.query_params.get("baseline")


def choose_baseline(chosen: str) -> None:
    st.query_params["baseline"] = chosen


def incident() -> int | None:
    """Number of the incident that the URL names."""
    return number("incident")


def choose_incident(chosen: int) -> None:
    choose_number("incident", chosen)


def number(name: str) -> int | None:
    """A small number in the URL; None when there is none, or none that makes sense."""
    named = st.query_params.get(name, "")
    return int(named) if re.fullmatch("[0-9]{1,9}", named) else None


def choose_number(name: str, chosen: int) -> None:
    st.query_params[name] = str(chosen)


def _range(name: str, pattern: re.Pattern[str]) -> tuple[int, int] | None:
    found = pattern.fullmatch(st.query_params.get(name, ""))
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    return (first, last) if first < last else None


def _range_text(window: tuple[float, float]) -> str:
    first = max(0, int(window[0]))
    return f"{first}-{max(first + 1, int(window[1]))}"
