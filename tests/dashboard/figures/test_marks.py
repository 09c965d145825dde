"""What happened to a run, over its curves."""

from dashboard.data.facts import Curve
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import MAX_INCIDENTS, Marks
from db.models import Incident
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
