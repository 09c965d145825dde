"""Controls of the charts of runs, which write themselves into the URL.

?curves=..&x=..&smooth=..&log=..&linear=..&fit-all=..
"""

import re
from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.axes import AxisChoices, Scale, XAxis
from dashboard.views import url_warning
from lossguard.vocabulary.metrics import short_name

SMOOTHING_STEPS = (0, 10, 30, 100, 300, 1000, 3000)
LINKED_SMOOTHING = "linked_smoothing"
"""In the session: numbers of steps that links asked for."""
AXES_HELP = (
    "An axis fits the live line in view; triangles on its edge mark values beyond it. *Fit all* makes room for them."
)
X_AXIS_NAMES = {XAxis.STEP: "Step", XAxis.TOKENS: "Tokens", XAxis.TIME: "Time", XAxis.FLOPS: "FLOPs"}


def metric_selector(metrics: Sequence[str], default: Sequence[str]) -> list[str]:
    """`default` may name metrics that there are not."""
    _take_metrics_from_url(metrics)
    return st.multiselect(
        "Curves",
        metrics,
        default=[name for name in default if name in metrics],
        format_func=short_name,
        key="curves",
        bind="query-params",
    )


def _take_metrics_from_url(metrics: Sequence[str]) -> None:
    """Accept `curves=lr` as well as the label in the box."""
    texts = url_state.texts("curves")
    if "curves" in st.session_state:
        return
    labels = {name: short_name(name) for name in metrics}
    known = set(labels.values())
    translated = list(dict.fromkeys(text if text in known else labels.get(text, text) for text in texts))
    if translated != texts:
        url_state.rewrite("curves", *translated)
    for text in texts:
        if text and text not in known:  # it is empty where the viewer chose none
            url_warning.warn("curves", text, "No run here reports such a metric.")


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


def axis_choices(metrics: Sequence[str]) -> AxisChoices:
    """Scale and range of the value axes, with a row for each metric in a popover. Those of other metrics are kept."""
    choices = url_state.axis_choices()
    popover = st.popover("Axes", icon=":material/straighten:", help=AXES_HELP, key="axes", on_change="rerun")
    if popover.open:
        with popover:
            for metric in metrics:
                _axis_row(metric, choices)
    return choices.of(metrics)


def _axis_row(metric: str, choices: AxisChoices) -> None:
    scale_key, fit_key = f"scale-{metric}", f"fit-all-{metric}"

    def save() -> None:
        scale, fit_all = Scale(st.session_state[scale_key]), st.session_state[fit_key]
        url_state.set_axis_choices(url_state.axis_choices().changed(metric, scale, fit_all=fit_all))

    set_widget(scale_key, choices.scale(metric))
    set_widget(fit_key, metric in choices.fit_all)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = formatting.escape_markdown(short_name(metric))
        st.segmented_control(
            label, list(Scale), required=True, key=scale_key, format_func=str.capitalize, on_change=save
        )
        st.toggle("Fit all", key=fit_key, on_change=save)


def set_widget(key: str, value: object) -> None:
    """Make a widget show what the URL says."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
