"""What happened to a run, over its curves."""

from dashboard.axes import RunAxes, StepAxis
from dashboard.data.facts import Curve
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import MAX_INCIDENTS, SKIPPED_UPDATE, Marks
from db.models import Event, Incident, Intervention, Order, Run
from db.queries import Series
from db.records.step_notes import StepNote
from tests.dashboard.facts import facts_of
from tests.dashboard.series import plain, traces


def test_of_thousands_of_incidents_the_open_and_the_newest_in_view_are_marked() -> None:
    incidents = [
        Incident(
            number=number, segment=0, kind="stall", state="open" if number == 5 else "closed", onset_step=number,
            detected_step=number, end_step=number,
        )
        for number in range(1000)
    ]  # fmt: skip
    curves, marks = {"loss": Curve(plain([1.0] * 1000), {})}, Marks(incidents=incidents)
    (names,) = traces(run_figure(curves, marks), "incident")
    assert list(names.x) == [5, *range(1000 - MAX_INCIDENTS + 1, 1000)]
    (zoomed,) = traces(run_figure(curves, marks, options=ChartOptions(window=(100, 109))), "incident")
    assert list(zoomed.x) == [*range(100, 110)]


CURVES = {name: Curve(plain([1.0] * 5), {}) for name in ("loss", "grad_norm")}


def test_each_skipped_update_has_one_mark_in_the_first_panel() -> None:
    skipped = Curve(plain([None, 1.0, 0.0, None, 2.0]), {})
    (trace,) = traces(run_figure(CURVES, Marks(skipped=skipped)), SKIPPED_UPDATE)
    assert list(trace.x) == [1, 4]
    assert list(trace.customdata) == ["1 update skipped at step 1", "2 updates skipped at step 4"]
    assert trace.showlegend is not False


def test_a_bucket_of_many_steps_says_how_many_it_holds() -> None:
    bucket = Series([0], [99], [1.0], [2.0], [1.5], [1.0], [4], [0])
    (trace,) = traces(run_figure(CURVES, Marks(skipped=Curve(bucket, {}))), SKIPPED_UPDATE)
    assert list(trace.customdata) == ["6 updates skipped at steps 0 to 99"]


def test_a_rollback_without_an_incident_is_marked_on_the_live_line_and_one_with_an_incident_on_its_branch() -> None:
    live, branch = StepAxis.through({0: 0.0, 9: 900.0}), StepAxis.through({2: 20.0, 4: 40.0})
    times = {"onset_step": 3, "detected_step": 4, "end_step": 4}
    incident = Incident(number=3, segment=0, kind="loss_spike", state="closed", **times)
    rolled_back = {"kind": "rollback", "state": "applied", "rewind_to": 2, "details": {"decided_step": 4}}
    rollbacks = [Intervention(number=number, incident=of, **rolled_back) for number, of in enumerate([3, None])]
    orders = dict.fromkeys(range(2), Order(state="applied", rewound_to=2))
    marks = Marks(incidents=[incident], interventions=rollbacks, orders=orders)
    arrows = traces(run_figure(CURVES, marks, RunAxes(live, {0: branch})), "intervention")
    assert [list(arrow.x) for arrow in arrows] == [[20, 40], [200, 400]]


def test_a_report_marks_the_newest_events_and_notes_only() -> None:
    events, notes = [Event(id=number) for number in range(5)], [StepNote(id=number) for number in range(5)]
    marks = Marks.of(facts_of(Run(), events=events, notes=notes), skipped=None, most=2)
    assert (marks.events, marks.notes) == (events[-2:], notes[-2:])
