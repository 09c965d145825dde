"""Skipped updates: their number, and their marks in the first panel of a run."""

from dashboard.data.facts import Curve
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import Marks
from dashboard.figures.skipped_updates import NAME
from db.queries import Series
from tests.dashboard.series import plain, traces

CURVES = {name: Curve(plain([1.0] * 5), {}) for name in ("loss", "grad_norm")}


def test_each_skipped_update_has_one_mark_in_the_first_panel() -> None:
    skipped = Curve(plain([None, 1.0, 0.0, None, 2.0]), {})
    (trace,) = traces(run_figure(CURVES, Marks(skipped=skipped)), NAME)
    assert list(trace.x) == [1, 4]
    assert list(trace.customdata) == ["1 update skipped at step 1", "2 updates skipped at step 4"]
    assert trace.showlegend is not False


def test_a_bucket_of_many_steps_says_how_many_it_holds() -> None:
    bucket = Series([0], [99], [1.0], [2.0], [1.5], [1.0], [4], [0])
    (trace,) = traces(run_figure(CURVES, Marks(skipped=Curve(bucket, {}))), NAME)
    assert list(trace.customdata) == ["6 updates skipped at steps 0 to 99"]
