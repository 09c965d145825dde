"""Nothing that matters is hidden by a chart."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from dashboard.data.facts import Curve
from dashboard.figures.curves import ChartOptions, run_figure, smoothed
from dashboard.figures.lines import BEYOND_THE_AXIS
from dashboard.figures.marks import Marks
from db.models import Event, Incident, Intervention, Order
from tests.dashboard.series import bucketed, plain, traces


def incident(**values: Any) -> Incident:
    usual = {
        "number": 1,
        "segment": 0,
        "kind": "loss_spike",
        "state": "open",
        "onset_step": 8,
        "detected_step": 10,
        "end_step": None,
    }
    return Incident(**(usual | values))


def test_a_spike_of_one_step_in_a_bucket_reaches_the_envelope() -> None:
    figure = run_figure({"loss": Curve(bucketed(), {})}, Marks())
    low, high = traces(figure, "smallest .. largest")
    assert list(low.y) == [1.0, 1.0]
    assert list(high.y) == pytest.approx([1.2, 9.0])
    assert high.fill == "tonexty"


def test_values_that_are_not_finite_are_a_gap_and_a_cross() -> None:
    figure = run_figure({"loss": Curve(plain([1.0, None, 2.0]), {})}, Marks())
    (line,), (crosses,) = traces(figure, "live line"), traces(figure, "not finite")
    assert list(line.y) == pytest.approx([1.0, math.nan, 2.0], nan_ok=True)
    assert list(crosses.x) == [1]


def drop(top: float = 3.0) -> list[float | None]:
    """An ordinary live line of 100 steps, down to a loss of 2."""
    return [2.0 + (top - 2.0) * math.exp(-step / 30) for step in range(100)]


def test_a_discarded_spike_leaves_the_axis_to_the_live_line_and_is_marked_on_the_edge() -> None:
    curve = Curve(plain(drop()), {0: plain([2.0, 2.1, 139.0])})
    figure = run_figure({"loss": curve, "grad_norm": curve}, Marks())
    for axis, mark in zip((figure.layout.yaxis, figure.layout.yaxis2), traces(figure, BEYOND_THE_AXIS), strict=True):
        assert axis.type == ("linear" if mark.yaxis == "y101" else "log")
        assert (list(mark.x), list(mark.y), list(mark.text)) == ([2], [1.0], ["139"])
        assert mark.customdata[0].endswith(" (discarded) 139: above the axis, step 2")
    low, high = figure.layout.yaxis.range
    assert 1.8 < low < 2.0 < 3.0 < high < 3.2
    # So that a double click does not let plotly make room for the spike.
    ends = figure.layout.yaxis.autorangeoptions
    assert (figure.layout.yaxis.autorange, ends.clipmin, ends.clipmax, ends.include) == (True, low, high, (low, high))


def test_a_signal_that_grows_a_hundredfold_on_the_live_line_has_a_log_axis() -> None:
    grows = plain([math.exp(step / 20) for step in range(100)])
    spikes = plain([*drop(), 1000.0, *drop()])
    kinds = [run_figure({"log_z": Curve(each, {})}, Marks()).layout.yaxis.type for each in (grows, spikes)]
    assert kinds == ["log", "linear"]


def incident_names(steps: Sequence[int], window: tuple[float, float] | None = None) -> list[str]:
    """As they are written over a run of 1000 steps."""
    incidents = [incident(number=number, detected_step=step) for number, step in enumerate(steps, 1)]
    marks = Marks(incidents=incidents, last_step=999)
    (marker,) = traces(
        run_figure({"loss": Curve(plain([1.0]), {})}, marks, options=ChartOptions(window=window)), "incident"
    )
    return list(marker.text)


def test_an_incident_too_near_to_the_next_one_is_its_number_alone() -> None:
    assert incident_names([100, 130, 500]) == ["#1", "#2 loss spike", "#3 loss spike"]
    assert incident_names([100, 130, 500], (90, 150)) == ["#1 loss spike", "#2 loss spike", "#3 loss spike"]
    assert incident_names([100, 100]) == ["#1", "#2"]


@pytest.mark.parametrize(("state", "drawn"), [("applied", True), ("open", False), ("failed", False)])
def test_a_rewind_is_drawn_where_the_trainer_really_went(state: str, drawn: bool) -> None:
    intervention = Intervention(
        number=1,
        kind="rollback",
        state="applied",
        rewind_to=50,
        skip_from=50,
        skip_to=250,
        details={"decided_step": 90},
    )
    marks = Marks(interventions=[intervention], orders={1: Order(state=state, rewound_to=30)})
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, marks)
    assert [list(trace.x) for trace in traces(figure, "intervention")] == ([[30, 90]] if drawn else [])
    assert [line.x0 for line in figure.layout.shapes] == ([30] if drawn else [])


def test_outliers_stand_in_the_panel_of_their_signal_and_declared_events_are_lines() -> None:
    events = [
        Event(segment=0, step=3, kind="outlier", details={"signal": "log_z", "value": 1.25}),
        Event(segment=0, step=4, kind="outlier", details={"signal": "log_z", "value": "NaN"}),
        Event(segment=0, step=5, kind="learning_rate", details={"lr": 1e-3}),
        Event(segment=0, step=None, kind="resume", details={}),
    ]
    figure = run_figure({name: Curve(plain([1.0]), {}) for name in ("loss", "log_z")}, Marks(events=events))
    (circles,) = traces(figure, "outlier, ignored")
    assert (circles.yaxis, list(circles.x), list(circles.y)) == ("y2", [3], [1.25])
    assert [line.x0 for line in figure.layout.shapes] == [5]
    assert list(traces(figure, "declared event")[0].customdata) == ["learning rate lr: 0.001"]


def test_a_gap_is_a_gap_and_teaches_nothing() -> None:
    line = smoothed(plain([2.0, None, 2.0]), 10)
    assert math.isnan(line[1])
    assert line[2] == pytest.approx(2.0)


def test_a_smoothed_spike_of_one_step_is_still_there_at_its_height() -> None:
    values: list[float | None] = [1.0, 1.0, 9.0, 1.0]
    figure = run_figure({"loss": Curve(plain(values), {})}, Marks(), options=ChartOptions(smooth=100))
    (raw,) = traces(figure, "live line, raw")
    assert list(raw.y) == values
    assert max(traces(figure, "live line")[0].y) < 5
