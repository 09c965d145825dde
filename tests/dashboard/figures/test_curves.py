"""Nothing that matters is hidden by a chart."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dashboard.axes import AxisChoices
from dashboard.data.facts import Curve
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.edges import NAME
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


def test_single_steps_need_no_envelope() -> None:
    figure = run_figure({"loss": Curve(plain([1.0, 2.0]), {})}, Marks())
    assert not traces(figure, "smallest .. largest")


def test_values_that_are_not_finite_are_a_gap_and_a_cross() -> None:
    figure = run_figure({"loss": Curve(plain([1.0, None, 2.0]), {})}, Marks())
    (line,), (crosses,) = traces(figure, "live line"), traces(figure, "not finite")
    assert list(line.y) == pytest.approx([1.0, math.nan, 2.0], nan_ok=True)
    assert list(crosses.x) == [1]


def test_a_run_that_was_never_finite_is_all_crosses() -> None:
    figure = run_figure({"grad_norm": Curve(plain([None, None]), {})}, Marks())
    assert list(traces(figure, "not finite")[0].x) == [0, 1]


def test_perplexity_and_grad_norm_have_log_axes_and_their_marks_do_not() -> None:
    curves = {name: Curve(plain([1.0]), {}) for name in ("loss", "perplexity", "grad_norm", "lr")}
    layout = run_figure(curves, Marks()).layout
    assert [layout[axis].type for axis in ("yaxis", "yaxis2", "yaxis3", "yaxis4")] == ["linear", "log", "log", "linear"]
    assert layout.yaxis102.type is None


def drop(top: float = 3.0) -> list[float | None]:
    """An ordinary live line of 100 steps, down to a loss of 2."""
    return [2.0 + (top - 2.0) * math.exp(-step / 30) for step in range(100)]


def test_a_discarded_spike_leaves_the_axis_to_the_live_line_and_is_marked_on_the_edge() -> None:
    curve = Curve(plain(drop()), {0: plain([2.0, 2.1, 139.0])})
    figure = run_figure({"loss": curve, "grad_norm": curve}, Marks())
    for axis, mark in zip((figure.layout.yaxis, figure.layout.yaxis2), traces(figure, NAME), strict=True):
        assert axis.type == ("linear" if mark.yaxis == "y101" else "log")
        assert (list(mark.x), list(mark.y), list(mark.text)) == ([2], [1.0], ["139"])
        assert mark.customdata[0].endswith(" (discarded) 139: above the axis, step 2")
    low, high = figure.layout.yaxis.range
    assert 1.8 < low < 2.0 < 3.0 < high < 3.2
    # So that a double click does not let plotly make room for the spike.
    ends = figure.layout.yaxis.autorangeoptions
    assert (figure.layout.yaxis.autorange, ends.clipmin, ends.clipmax, ends.include) == (True, low, high, (low, high))


def test_a_viewer_chooses_scale_and_range_of_each_panel() -> None:
    curve = Curve(plain(drop()), {0: plain([2.0, 2.1, 139.0])})
    choices = AxisChoices(log=frozenset({"loss"}), linear=frozenset({"grad_norm"}), fit_all=frozenset({"lr"}))
    curves = {name: curve for name in ("loss", "grad_norm", "lr")}
    figure = run_figure(curves, Marks(), options=ChartOptions(axes=choices))
    layout = figure.layout
    assert [layout[axis].type for axis in ("yaxis", "yaxis2", "yaxis3")] == ["log", "linear", "linear"]
    assert layout.yaxis2.range[1] < 4 < 139 < layout.yaxis3.range[1]
    assert [mark.yaxis for mark in traces(figure, NAME)] == ["y101", "y102"]


def test_a_signal_that_grows_a_hundredfold_on_the_live_line_has_a_log_axis() -> None:
    grows = plain([math.exp(step / 20) for step in range(100)])
    spikes = plain([*drop(), 1000.0, *drop()])
    kinds = [run_figure({"log_z": Curve(each, {})}, Marks()).layout.yaxis.type for each in (grows, spikes)]
    assert kinds == ["log", "linear"]


def test_an_ignored_outlier_beyond_the_axis_stands_on_its_edge() -> None:
    outlier = Event(segment=0, step=5, kind="outlier", details={"signal": "loss", "value": 40.0})
    figure = run_figure({"loss": Curve(plain(drop()), {})}, Marks(events=[outlier]))
    (circle,) = traces(figure, "outlier, ignored")
    assert list(circle.y) == pytest.approx([figure.layout.yaxis.range[1]])
    assert "40" in circle.customdata[0]


def test_panels_do_not_overlap_and_fill_the_figure() -> None:
    curves = {name: Curve(plain([1.0]), {}) for name in ("loss", "log_z", "lr")}
    layout = run_figure(curves, Marks()).layout
    domains = [layout[axis].domain for axis in ("yaxis3", "yaxis2", "yaxis")]
    edges = [edge for domain in domains for edge in domain]
    assert edges == sorted(edges)
    assert edges[0] == pytest.approx(0.0)
    assert edges[-1] < layout.yaxis201.domain[0] < layout.yaxis201.domain[1] == 1.0


def test_every_kind_of_line_is_named_once() -> None:
    curves = {name: Curve(plain([1.0]), {0: plain([1.0]), 1: plain([2.0])}) for name in ("loss", "lr")}
    figure = run_figure(curves, Marks())
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == ["discarded branch", "live line"]


def test_a_value_too_large_for_single_precision_keeps_its_height() -> None:
    figure = run_figure({"perplexity": Curve(plain([2.0, 1e60, None]), {})}, Marks())
    assert list(traces(figure, "live line")[0].y) == pytest.approx([2.0, 1e60, math.nan], nan_ok=True)
    assert traces(run_figure({"loss": Curve(plain([2.0, 139.0]), {})}, Marks()), "live line")[0].y.dtype == np.float32


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


def test_names_on_both_sides_of_the_last_quarter_do_not_meet() -> None:
    assert incident_names([650, 850]) == ["#1", "#2"]
    assert incident_names([300, 850]) == ["#1 loss spike", "#2 loss spike"]
    assert incident_names([850, 870]) == ["#1 loss spike", "#2"]


def test_an_incident_that_is_not_over_reaches_to_the_newest_step() -> None:
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, Marks(incidents=[incident()], last_step=40))
    (band,) = figure.layout.shapes
    assert (band.x0, band.x1) == (7.5, 40.5)
    (marker,) = traces(figure, "incident")
    assert (list(marker.x), list(marker.text)) == ([10], ["#1 loss spike"])


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


def test_a_figure_is_json_and_holds_no_number_that_json_cannot() -> None:
    figure = run_figure({"loss": Curve(bucketed(), {0: plain([None, math.inf])})}, Marks(incidents=[incident()]))
    assert "NaN" not in figure.to_json()
    assert "Infinity" not in figure.to_json()


def test_no_curves_make_an_empty_figure() -> None:
    assert not run_figure({}, Marks(incidents=[incident()])).data


def test_what_is_measured_now_and_then_is_shown_point_by_point() -> None:
    few, many = plain([1.0]), plain([1.0] * 1000)
    modes = [traces(run_figure({"loss": Curve(each, {})}, Marks()), "live line")[0].mode for each in (few, many)]
    assert modes == ["lines+markers", "lines"]


def test_an_event_with_a_number_that_no_float_holds_is_described() -> None:
    huge = 10**400
    events = [
        Event(segment=0, step=3, kind="phase", details={"n": huge}),
        Event(segment=0, step=4, kind="outlier", details={"signal": "loss", "value": huge}),
    ]
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, Marks(events=events))
    assert list(traces(figure, "declared event")[0].customdata) == ["phase n: 1.000e+400"]
    assert not traces(figure, "outlier, ignored")
