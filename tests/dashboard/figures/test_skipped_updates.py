"""Skipped updates: their number, and their marks in the first panel of a run."""

from dashboard.data.facts import Curve
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import Marks
from dashboard.figures.skipped_updates import NAME, num_skipped
from db.queries import Series
from tests.dashboard.series import plain, traces

CURVES = {name: Curve(plain([1.0] * 5), {}) for name in ("loss", "grad_norm")}


def test_each_skipped_update_has_one_mark_in_the_first_panel() -> None:
    skipped = Curve(plain([None, 1.0, 0.0, None, 2.0]), {})
    (trace,) = traces(run_figure(CURVES, Marks(skipped=skipped)), NAME)
    assert list(trace.x) == [1, 4]
    assert list(trace.customdata) == ["1 update skipped at step 1", "2 updates skipped at step 4"]
    assert trace.showlegend is not False


def test_those_of_a_discarded_branch_are_marked_too() -> None:
    skipped = Curve(plain([None, 1.0]), {0: plain([None, None, 1.0])})
    assert [list(trace.x) for trace in traces(run_figure(CURVES, Marks(skipped=skipped)), NAME)] == [[1], [2]]


def test_a_run_that_skipped_nothing_has_no_mark() -> None:
    assert traces(run_figure(CURVES, Marks()), NAME) == []
    assert traces(run_figure(CURVES, Marks(skipped=Curve(plain([0.0, None]), {}))), NAME) == []


def test_a_bucket_of_many_steps_says_how_many_it_holds() -> None:
    bucket = Series([0], [99], [1.0], [2.0], [1.5], [1.0], [4], [0])
    (trace,) = traces(run_figure(CURVES, Marks(skipped=Curve(bucket, {}))), NAME)
    assert list(trace.customdata) == ["6 updates skipped at steps 0 to 99"]


def test_the_total_counts_every_update_and_no_nonsense() -> None:
    assert num_skipped(Series([0], [99], [1.0], [2.0], [1.5], [1.0], [4], [0])) == 6
    assert num_skipped(plain([None, 1.0, -3.0])) == 1
    assert num_skipped(Series()) == 0
