"""Controls of the charts of runs, which write themselves into the URL: ?curves=..&x=..&smooth=.."""

import re
from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.figures.axis import XAxis
from dashboard.views import url_warning
from lossguard.metrics import short_name

SMOOTHING_STEPS = (0, 10, 30, 100, 300, 1000, 3000)
LINKED_SMOOTHING = "linked_smoothing"
"""In the session: numbers of steps that links asked for."""
X_AXIS_NAMES = {XAxis.STEP: "Step", XAxis.TOKENS: "Tokens", XAxis.TIME: "Time", XAxis.FLOPS: "FLOPs"}


def metric_selector(metrics: Sequence[str], default: Sequence[str]) -> list[str]:
    """`default` may name metrics that there are not."""
    return st.multiselect(
        "Curves",
        metrics,
        default=[name for name in default if name in metrics],
        format_func=short_name,
        key="curves",
        bind="query-params",
    )


def x_axis_selector(axes: Sequence[XAxis], *, on_change: Callable[[], None] | None = None) -> XAxis:
    _take_axis_from_url(axes)
    return st.segmented_control(
        "X axis",
        axes,
        default=XAxis.STEP,
        required=True,
        format_func=X_AXIS_NAMES.__getitem__,
        key="x",
        bind="query-params",
        on_change=on_change,
    )


def _take_axis_from_url(axes: Sequence[XAxis]) -> None:
    """Accept `x=time` as well as the name on the button."""
    text = url_state.text("x")
    if text is None or "x" in st.session_state or text in map(X_AXIS_NAMES.__getitem__, axes):
        return
    found = next((axis for axis in axes if text.lower() == axis), None)
    if found is None:
        names = ", ".join(X_AXIS_NAMES[axis] for axis in axes)
        url_warning.warn("x", text, f"Choose one of: {names}.")
    else:
        url_state.rewrite("x", X_AXIS_NAMES[found])


def smoothing_selector() -> int:
    """Steps; 0 for no smoothing."""
    return st.selectbox(
        "Smoothing",
        _smoothing_options(),
        format_func=_smoothing_label,
        key="smooth",
        bind="query-params",
        width=130,
    )


def _smoothing_options() -> list[int]:
    """The listed numbers of steps, and the one of a link: `smooth=250`."""
    linked: set[int] = st.session_state.setdefault(LINKED_SMOOTHING, set())
    text = url_state.text("smooth")
    if text is not None and "smooth" not in st.session_state:
        number = re.fullmatch(r"([0-9]{1,9})( steps?)?", text.replace(",", ""))
        if number:
            linked.add(int(number[1]))
            if text != _smoothing_label(int(number[1])):
                url_state.rewrite("smooth", _smoothing_label(int(number[1])))
        elif text != _smoothing_label(0):
            url_warning.warn("smooth", text, "Give a number of steps, such as 100.")
    return sorted({*SMOOTHING_STEPS, *linked})


def _smoothing_label(steps: int) -> str:
    return formatting.plural(steps, "step") if steps else "off"
