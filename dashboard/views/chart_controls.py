"""Controls of the charts of runs, which write themselves into the URL: ?curves=..&x=..&smooth=.."""

from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import formatting
from dashboard.figures.axis import XAxis
from lossguard.metrics import short_name

SMOOTHING_STEPS = (0, 10, 30, 100, 300, 1000, 3000)
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


def smoothing_selector() -> int:
    """Steps; 0 for no smoothing."""
    return st.selectbox(
        "Smoothing", SMOOTHING_STEPS, format_func=_smoothing_label, key="smooth", bind="query-params", width=130
    )


def _smoothing_label(steps: int) -> str:
    return formatting.plural(steps, "step") if steps else "off"
