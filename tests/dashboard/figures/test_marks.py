"""What happened to a run, over its curves."""

from dashboard.data.facts import Curve
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import MAX_HOVER_LETTERS, Marks
from db.models import Event, Incident
from tests.dashboard.series import plain, traces


def test_the_hover_text_of_an_event_with_long_details_is_cut() -> None:
    event = Event(segment=0, step=0, kind="learning_rate", details={"why": "x" * 10_000})
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, Marks(events=[event]))
    (hover,) = traces(figure, "declared event")[0].customdata
    assert hover.startswith("learning rate why: xxx")
    assert len(hover) <= MAX_HOVER_LETTERS + len(" ..")


def test_the_name_of_an_incident_is_no_markup() -> None:
    incident = Incident(
        number=1, segment=0, kind="<a href=x>y</a>", state="open", onset_step=0, detected_step=0, end_step=0
    )
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, Marks(incidents=[incident]))
    (names,) = traces(figure, "incident")
    assert names.text[0] == "#1 &lt;a href=x&gt;y&lt;/a&gt;"
    assert "<a" not in names.customdata[0]
    assert names.ids is None


def test_the_marker_of_an_incident_leads_to_its_page() -> None:
    incident = Incident(number=3, segment=0, kind="stall", state="open", onset_step=0, detected_step=0, end_step=0)
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, Marks(incidents=[incident], run_id="a&b"))
    (names,) = traces(figure, "incident")
    assert list(names.ids) == ["/incident?run=a%26b&incident=3"]
