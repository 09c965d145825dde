"""Controls of the charts of runs, which write themselves into the URL.

?curves=..&x=..&smooth=..&log=..&linear=..&fit-all=..
"""

import re
from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.axes import AxisChoices, AxisScale, XAxis
from dashboard.views import url_warning
from lossguard.vocabulary.metrics import short_name

SMOOTHING_STEPS = (0, 10, 30, 100, 300, 1000, 3000)
AXES_HELP = (
    "An axis fits the live line in view; triangles on its edge mark values beyond it. *Fit all* makes room for them."
)
X_AXIS_NAMES = {XAxis.STEP: "Step", XAxis.TOKENS: "Tokens", XAxis.TIME: "Time", XAxis.FLOPS: "FLOPs"}


# Each control takes its value from the URL and writes it back, so that its value is known where it is not shown.


def metric_selector(metrics: Sequence[str], default: Sequence[str], *, shown: bool = True) -> list[str]:
    """`default` may name metrics that there are not. Accepts `curves=lr` as well as the label in the box."""
    labels = {short_name(name): name for name in metrics} | {name: name for name in metrics}
    texts = url_state.texts("curves")
    for text in texts:
        if text and text not in labels:  # it is empty where the viewer chose none
            url_warning.warn("curves", text, "No run here reports such a metric.")
    usual = [name for name in default if name in metrics]
    chosen = list(dict.fromkeys(labels[text] for text in texts if text in labels)) if texts else usual

    def save() -> None:
        names = st.session_state["curves"]
        url_state.set_texts("curves", [] if names == usual else list(map(short_name, names)) or [""])

    if shown:
        set_widget("curves", chosen)
        st.multiselect("Curves", metrics, format_func=short_name, key="curves", on_change=save)
    return chosen


def x_axis_selector(axes: Sequence[XAxis], *, on_change: Callable[[], None] | None = None, shown: bool = True) -> XAxis:
    """Accepts `x=time` as well as the name on the button."""
    text = url_state.text("x")
    chosen = next((axis for axis in axes if text is not None and text.lower() == axis), None)
    if text is not None and chosen is None:
        names = ", ".join(X_AXIS_NAMES[axis] for axis in axes)
        url_warning.warn("x", text, f"Choose one of: {names}.")
    chosen = chosen or XAxis.STEP

    def save() -> None:
        axis = st.session_state["x"]
        url_state.set_texts("x", [] if axis == XAxis.STEP else [X_AXIS_NAMES[axis]])
        if on_change is not None:
            on_change()

    if shown:
        set_widget("x", chosen)
        name = X_AXIS_NAMES.__getitem__
        st.segmented_control("X axis", axes, required=True, format_func=name, key="x", on_change=save)
    return chosen


def smoothing_selector(*, shown: bool = True) -> int:
    """Steps; 0 for no smoothing. A link may ask for any number of them: `smooth=250`."""
    text = url_state.text("smooth") or _smoothing_label(0)
    number = re.fullmatch(r"([0-9]{1,9})( steps?)?", text.replace(",", ""))
    chosen = int(number[1]) if number else 0
    if not number and text != _smoothing_label(0):
        url_warning.warn("smooth", text, "Give a number of steps, such as 100.")

    def save() -> None:
        steps = st.session_state["smooth"]
        url_state.set_texts("smooth", [_smoothing_label(steps)] if steps else [])

    if shown:
        set_widget("smooth", chosen)
        options = sorted({*SMOOTHING_STEPS, chosen})
        st.selectbox("Smoothing", options, format_func=_smoothing_label, key="smooth", on_change=save, width=130)
    return chosen


def _smoothing_label(steps: int) -> str:
    return formatting.plural(steps, "step") if steps else "off"


def axis_choices(metrics: Sequence[str], *, shown: bool) -> AxisChoices:
    """Scale and range of the value axes, with a row for each metric. Those of other metrics are kept."""
    choices = url_state.axis_choices()
    if shown:
        st.caption(AXES_HELP)
        for metric in metrics:
            _axis_row(metric, choices)
    return choices.of(metrics)


def _axis_row(metric: str, choices: AxisChoices) -> None:
    scale_key, fit_key = f"scale-{metric}", f"fit-all-{metric}"

    def save() -> None:
        scale, fit_all = AxisScale(st.session_state[scale_key]), st.session_state[fit_key]
        url_state.set_axis_choices(url_state.axis_choices().changed(metric, scale, fit_all=fit_all))

    set_widget(scale_key, choices.scale(metric))
    set_widget(fit_key, metric in choices.fit_all)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = formatting.escape_markdown(short_name(metric))
        st.segmented_control(
            label, list(AxisScale), required=True, key=scale_key, format_func=str.capitalize, on_change=save
        )
        st.toggle("Fit all", key=fit_key, on_change=save)


def set_widget(key: str, value: object) -> None:
    """Make a widget show what the URL says."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
