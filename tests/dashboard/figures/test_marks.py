"""What happened to a run, over its curves."""

from dashboard.data.facts import Curve
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import HOVER_LINE_LETTERS, MAX_HOVER_LETTERS, MAX_INCIDENTS, Marks
from db.models import Event, Incident
from db.records.step_notes import StepNote
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


def test_the_marker_of_an_incident_leads_to_its_page() -> None:
    incident = Incident(number=3, segment=0, kind="stall", state="open", onset_step=0, detected_step=0, end_step=0)
    figure = run_figure({"loss": Curve(plain([1.0]), {})}, Marks(incidents=[incident], run_id="a&b"))
    (names,) = traces(figure, "incident")
    assert list(names.ids) == ["/incident?run=a%26b&incident=3"]


def test_a_pin_holds_all_notes_of_its_step_in_short_lines() -> None:
    texts = [(3, "it began here"), (3, "so it did"), (7, "long " * 1000)]
    notes = [StepNote(step=step, text=text, author="Ada") for step, text in texts]
    (pins,) = traces(run_figure({"loss": Curve(plain([1.0] * 9), {})}, Marks(notes=notes)), "note")
    assert (list(pins.x[::3]), list(pins.marker.size[:3])) == ([3, 7], [10, 0, 0])
    assert pins.customdata[0] == "it began here (Ada)<br>so it did (Ada)"
    lines = pins.customdata[3].split("<br>")
    assert max(map(len, lines)) <= HOVER_LINE_LETTERS
    assert sum(map(len, lines)) < MAX_HOVER_LETTERS + len(" .. (Ada)")


def test_the_line_of_an_event_does_not_strike_through_the_names_of_incidents() -> None:
    event = Event(segment=0, step=1, kind="lr", details={})
    figure = run_figure({"loss": Curve(plain([1.0, 2.0]), {})}, Marks(events=[event], last_step=1))
    (line,) = figure.layout.shapes
    assert line.y1 == figure.layout.yaxis.domain[1] < 1
