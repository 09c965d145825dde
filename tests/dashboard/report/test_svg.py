"""The pictures of the report show what the pages' figures show, without a script."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import plotly.graph_objects as go  # type: ignore[import-untyped]

from dashboard.data.compute import Compute
from dashboard.data.facts import Curve
from dashboard.figures.compute import compute_figure
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import Marks
from dashboard.report.svg import LETTER_WIDTH, render_svg
from db.models import Event, Incident
from db.queries import Series


def series(values: list[float | None], broken: Mapping[int, int] | None = None) -> Series:
    steps = list(range(len(values)))
    counts = [(broken or {}).get(step, 0) for step in steps]
    return Series(steps, steps, values, values, values, values, [1] * len(steps), counts, values)


def picture(figure: go.Figure) -> ElementTree.Element:
    """The picture as a reader of XML takes it: one that is not well-formed raises."""
    text = render_svg(figure, name="p", label="a picture")
    return ElementTree.fromstring(text[text.index('<svg viewBox="0 0 760') :])


def texts(drawn: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()) for each in drawn.iter("text")]


def incident(number: int, step: int) -> Incident:
    return Incident(
        number=number, segment=0, kind="loss_spike", state="closed", signal="loss", onset_step=step,
        detected_step=step + 1, end_step=step + 2, details={},
    )  # fmt: skip


def test_an_axis_of_a_perplexity_beyond_all_bounds_has_ticks_that_can_be_read() -> None:
    drawn = picture(run_figure({"perplexity": Curve(series([3.0, 1e60, 4.0]), {})}, Marks(last_step=2)))
    assert {"1", "1e+23", "1e+46"} <= set(texts(drawn))


def test_a_run_is_drawn_with_its_panels_its_incident_and_what_is_not_finite() -> None:
    curve = Curve(series([3.0, 2.0, None, 2.5], {2: 1}), {})
    drawn = picture(run_figure({"loss": curve, "perplexity": curve}, Marks([incident(1, 1)], last_step=3)))
    assert {"Loss (nats per token)", "Perplexity - log scale", "#1 loss spike", "Step"} <= set(texts(drawn))
    hovers = [each.text for each in drawn.iter("title")]
    assert "loss not finite: 1 value (live line)" in hovers
    lines = [each.attrib["d"] for each in drawn.iter("path") if each.get("class") == "line"]
    assert all(path.count("M") == 2 for path in lines[:2])


def test_a_point_of_a_rarely_measured_metric_shows_its_value_and_its_spread() -> None:
    spread = Series([0, 4], [3, 7], [1.0, 2.0], [3.0, 5.0], [2.0, 4.0], [2.0, 4.0], [4, 4], [0, 0], [1.0, 2.0])
    drawn = picture(run_figure({"held_out_loss": Curve(spread, {})}, Marks(last_step=7)))
    assert [each.text for each in drawn.iter("title")] == ["held-out loss 2 (1 .. 3)", "held-out loss 4 (2 .. 5)"]


def test_a_name_that_people_chose_is_never_markup() -> None:
    name = "</title></svg><script>alert(1)</script><b>&amp;"
    event = Event(segment=0, step=1, kind=name, details={"why": name})
    drawn = picture(run_figure({name: Curve(series([1.0, 2.0]), {})}, Marks(events=[event], last_step=1)))
    assert name in texts(drawn)
    assert any(name in (each.text or "") for each in drawn.iter("title"))


def test_a_name_that_looks_like_a_place_in_a_template_stays_a_name() -> None:
    name = "share %{x[9]} of %{nothing}"
    figure = run_figure({name: Curve(series([1.0, 2.0, None], {2: 1}), {})}, Marks(last_step=2))
    hovers = [each.text or "" for each in picture(figure).iter("title")]
    assert f"{name} 1" in hovers
    assert f"{name} not finite: 1 value (live line)" in hovers


def test_skipped_updates_are_marked_in_a_report_too() -> None:
    skipped = Curve(series([None, 1.0, None]), {})
    drawn = picture(run_figure({"loss": Curve(series([1.0, 2.0, 3.0]), {})}, Marks(skipped=skipped)))
    assert any("1 update skipped at step 1" in (each.text or "") for each in drawn.iter("title"))


def test_an_axis_of_words_keeps_its_order() -> None:
    figure = compute_figure(Compute(1_000_000, 5e6))
    assert figure is not None
    drawn = picture(figure)
    rows = {"".join(each.itertext()): float(each.attrib["y"]) for each in drawn.iter("text")}
    assert rows["this run"] < rows["20 tokens per parameter"] < rows["GPT-3 175B"] < rows["Llama 2 70B"]
    assert any(re.fullmatch(r"10\d+", text) for text in texts(drawn))


def test_names_that_would_cover_each_other_are_left_to_the_pointer() -> None:
    marks = Marks([incident(1, 5), incident(2, 8), incident(3, 50)], last_step=99)
    drawn = picture(run_figure({"loss": Curve(series([1.0] * 100), {})}, marks))
    assert [text for text in texts(drawn) if text.startswith("#")] == ["#2 loss spike", "#3 loss spike"]
    assert sum("detected" in (each.text or "") for each in drawn.iter("title")) == 3


def test_where_the_kind_of_an_incident_has_no_place_its_number_has() -> None:
    marks = Marks([incident(1, 30), incident(2, 45), incident(3, 60)], last_step=99)
    drawn = picture(run_figure({"loss": Curve(series([1.0] * 100), {})}, marks))
    assert [text for text in texts(drawn) if text.startswith("#")] == ["#1", "#2", "#3 loss spike"]


def shapes(drawn: ElementTree.Element) -> list[Any]:
    return [each for each in drawn.iter("rect") if each.get("fill")]


def test_what_lies_outside_the_steps_in_view_is_not_drawn_beside_them() -> None:
    figure = run_figure({"loss": Curve(series([1.0] * 100), {})}, Marks([incident(1, 5)], last_step=99))
    assert len(shapes(picture(figure))) == 1
    figure.update_layout(xaxis_range=[50, 99])
    drawn = picture(figure)
    assert shapes(drawn) == []
    assert "#1 loss spike" not in texts(drawn)


def test_labels_of_long_step_numbers_do_not_overlap() -> None:
    steps = [0, 60 * 10**12]
    values: list[float | None] = [1.0, 2.0]
    line = Series(steps, steps, values, values, values, values, [1, 1], [0, 0], values)
    drawn = picture(run_figure({"loss": Curve(line, {})}, Marks()))
    texts = [
        each for each in drawn.iter() if each.get("text-anchor") == "middle" and each.text and each.text[0].isdigit()
    ]
    places = [(float(each.get("x", "")), 0.5 * LETTER_WIDTH * len(each.text or "")) for each in texts]
    assert len(places) > 2
    assert all(left + half < right - other for (left, half), (right, other) in pairwise(places))


def test_a_discarded_spike_leaves_its_panel_at_the_edge_and_does_not_cross_the_others() -> None:
    line = series([2.0 + 0.01 * step for step in range(100)])
    curve = Curve(line, {0: series([2.0, 1e46, 2.0])})
    drawn = picture(run_figure({"loss": curve, "lr": Curve(series([3e-4] * 100), {})}, Marks(last_step=99)))
    assert {"1.000e+46", "0.0003"} <= set(texts(drawn))
    assert "loss (discarded) 1.000e+46: above the axis, step 1" in [each.text for each in drawn.iter("title")]
    clips = {each.attrib["id"] for each in drawn.iter("clipPath")}
    groups = [each for each in drawn.iter("g") if each.get("clip-path")]
    assert {each.attrib["clip-path"] for each in groups} == {"url(#p-y)", "url(#p-y2)"}
    assert {"p-y", "p-y2"} <= clips
