"""Which lines the URL names, and their labels and styles."""

from typing import Any

import pytest

from dashboard.axes import XAxis
from dashboard.data.facts import RunFacts
from dashboard.data.progress import Progress
from dashboard.figures.style import RUN_COLOURS
from dashboard.views.compare import lines
from dashboard.views.compare.lines import LineId
from db.models import Run


def facts(run_id: str, *, name: str | None = None, metrics: tuple[str, ...] = (), **config: Any) -> RunFacts:
    """A run with hardly any data."""
    run = Run(id=run_id, project="p", name=name, config=config)
    nothing: Any = {"segments": [], "incidents": [], "interventions": [], "orders": {}, "ledger": [], "events": []}
    return RunFacts(
        run=run,
        progress=Progress(0, None, None),
        metrics=list(metrics),
        newest={},
        mfu=None,
        layers={},
        **nothing,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b:1", [LineId("a"), LineId("b", 1)]),
        ("a,a,a:0", [LineId("a"), LineId("a", 0)]),
        ("", []),
        (" a , ,<b>,c:x,:3, d:\u00b2", [LineId("a")]),
    ],
)
def test_the_url_names_each_line_once_and_invalid_ids_are_ignored(text: str, named: list[LineId]) -> None:
    assert lines.parse_line_ids(text) == named


def test_a_line_id_is_formatted_as_it_is_parsed() -> None:
    assert lines.parse_line_ids(",".join(map(str, (LineId("a.b-c"), LineId("d", 12))))) == [
        LineId("a.b-c"),
        LineId("d", 12),
    ]


def test_runs_with_the_same_name_get_their_id_and_segments_their_number() -> None:
    chosen = [
        (LineId("a"), facts("a", name="tiny")),
        (LineId("a", 1), facts("a", name="tiny")),
        (LineId("b"), facts("b", name="tiny")),
        (LineId("c"), facts("c")),
    ]
    labels = [line.label for line in lines.compared_lines(chosen)]
    assert labels == ["tiny (a)", "tiny (a), segment 1", "tiny (b)", "c"]


def test_long_names_are_shortened_and_stay_unique() -> None:
    names = lines.run_names([Run(id=each, name=f"{'x' * 60} {each}") for each in ("a", "b")])
    assert names["a"] != names["b"]
    assert all(len(name) < 60 for name in names.values())


def test_no_two_lines_look_alike() -> None:
    looks = [(style.color, style.dash) for style in (lines.line_style(place, "") for place in range(lines.MAX_LINES))]
    assert len(set(looks)) == lines.MAX_LINES
    assert [color for color, _ in looks[: len(RUN_COLOURS)]] == list(RUN_COLOURS)


def test_a_name_is_never_markup_in_the_figure() -> None:
    assert "<b>" not in lines.line_style(0, "<b>bold</b>").note


@pytest.mark.parametrize(
    ("facts", "axes"),
    [
        (facts("a", metrics=("loss",), num_parameters=10), [XAxis.STEP]),
        (facts("a", metrics=("loss", "tokens")), [XAxis.STEP, XAxis.TOKENS]),
        (facts("a", metrics=("loss", "tokens"), num_parameters=10), [XAxis.STEP, XAxis.TOKENS, XAxis.FLOPS]),
    ],
)
def test_a_run_has_the_axes_for_which_it_reports_data(facts: RunFacts, axes: list[XAxis]) -> None:
    (line,) = lines.compared_lines([(LineId("a"), facts)])
    assert [x_axis for x_axis in (XAxis.STEP, XAxis.TOKENS, XAxis.FLOPS) if lines.has_x_axis(line, x_axis)] == axes
