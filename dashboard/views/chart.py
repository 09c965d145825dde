"""Controls of a chart, and what its viewer did to it, in the URL.

The controls write ?curves=..&x=..&smooth=..&log=..&linear=..&fit-all=.., the chart its range in view or ?last=STEPS,
and ?hidden=ENTRY&collapsed=METRIC&y=METRIC:LOW..HIGH.

The chart reports all of it at once (figures/chart_view.js). A URL that is not the one of its last report is a link, or
that of the browser's back button: what the viewer wants to see.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard import formatting, url_state
from dashboard.axes import AxisChoices, AxisScale, XAxis
from dashboard.figures import component
from lossguard.vocabulary.metrics import short_name

SAID = "url_warnings"
"""Key in the session: warnings that were shown."""
MAX_LETTERS = 60


def warn(parameter: str, text: str, remedy: str) -> None:
    """A message that stays until the viewer closes it: `parameter` has the value `text`; `remedy` is a sentence."""
    said: set[tuple[str, str]] = st.session_state.setdefault(SAID, set())
    if (parameter, text) in said:
        return
    said.add((parameter, text))
    value = formatting.escape_markdown(text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]} ..")
    message = f"The link has {parameter}={value}, which is not valid. {remedy}"
    st.toast(message, icon=":material/link_off:", duration="infinite")


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
            warn("curves", text, "No run here reports such a metric.")
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
        warn("x", text, f"Choose one of: {names}.")
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
        warn("smooth", text, "Give a number of steps, such as 100.")

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


HIDDEN, COLLAPSED, ZOOMED, LAST = "hidden", "collapsed", "y", "last"
RECORDS = "chart_views"
"""Key in the session: the record of each chart, by the chart's key."""

Parameters = tuple[tuple[str, ...], ...]
"""The values of the chart's parameters in the URL."""


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """State of the URL after a chart's last report."""

    x: list[float] | None
    """The range of the report, in units of the x axis; [] for all of it, None where the viewer has not zoomed."""
    parameters: Parameters


def view_in_url(key: str, range_name: str) -> dict[str, Any]:
    """Return the URL's state of a chart for component.js; `range_name` is the parameter of the range in view."""
    viewed, record = component.viewed(key), _records().get(key)
    if record is not None and not (viewed and _parameters(range_name) == record.parameters):
        forget_view(key)
        record = None
    text = url_state.text(range_name)
    if text is not None and url_state.range_in(text) is None:
        warn(range_name, text, "The whole range is shown. Give two numbers, such as 1000-2000.")
    for text in url_state.texts(ZOOMED):
        if not url_state.ranges_in([text]):
            warn(ZOOMED, text, "Give a metric and two numbers, such as loss:1.5..3.")
    return {
        "answers": viewed.get("turn", 0),
        "link": None if record is not None else repr(_parameters(range_name)),
        "hidden": url_state.texts(HIDDEN),
        "collapsed": url_state.texts(COLLAPSED),
        "y": url_state.ranges_in(url_state.texts(ZOOMED)),
    }


def save_view(
    key: str, range_name: str, set_range: Callable[[tuple[float, float] | None], None], *, last: str | None = None
) -> None:
    """Write the chart's newest report to the URL; `set_range` is called with a new range in units of the x axis.

    A range on another axis is left out: the viewer has zoomed before the figure on the chosen axis was there.
    `last`: the newest part of the run that stays in view from now on, in place of a range.
    """
    viewed, record = component.viewed(key), _records().get(key)
    x = viewed.get("x")
    in_url = (url_state.text("x") or "").lower()  # decides where the control is not shown
    chosen_axis = st.session_state.get("x") or (in_url if in_url in set(XAxis) else XAxis.STEP)
    is_of_chosen_axis = viewed.get("axis") in (None, chosen_axis)
    if x is not None and is_of_chosen_axis and (record is None or x != record.x):
        set_range((float(x[0]), float(x[1])) if x else None)
    if last:
        set_range(None)
    url_state.set_texts(LAST, [last] if last else [])
    url_state.set_texts(HIDDEN, viewed.get("hidden", []))
    url_state.set_texts(COLLAPSED, viewed.get("collapsed", []))
    url_state.set_ranges(ZOOMED, viewed.get("y", {}))
    _records()[key] = ViewRecord(x, _parameters(range_name))


def forget_view(key: str) -> None:
    """Let the URL decide until the chart's next report."""
    _records().pop(key, None)


def _records() -> dict[str, ViewRecord]:
    records: dict[str, ViewRecord] = st.session_state.setdefault(RECORDS, {})
    return records


def _parameters(range_name: str) -> Parameters:
    return tuple(tuple(url_state.texts(name)) for name in (range_name, HIDDEN, COLLAPSED, ZOOMED, LAST))
