"""What a page shows, in its URL, so that a link or a reload shows the same.

Widgets write themselves into the URL: give them `key="name", bind="query-params"`. Here is what no widget holds:
`?run=ID` and the steps in view, `?steps=FIRST-LAST`.
"""

import re

import streamlit as st

_STEPS = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")


def run() -> str | None:
    """The run that the URL names."""
    return st.query_params.get("run")


def choose_run(run_id: str) -> None:
    st.query_params["run"] = run_id


def steps() -> tuple[int, int] | None:
    """First and last step in view; None for the whole run, also when the URL makes no sense."""
    found = _STEPS.fullmatch(st.query_params.get("steps", ""))
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    return (first, last) if first < last else None


def choose_steps(window: tuple[float, float] | None) -> None:
    """Keep these steps in view; None for the whole run."""
    if window is None:
        st.query_params.pop("steps", None)
        return
    first = max(0, int(window[0]))
    st.query_params["steps"] = f"{first}-{max(first + 1, int(window[1]))}"


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
