"""Which lines the URL names, and their labels and styles."""

import pytest

from dashboard.data.facts import RunFacts
from dashboard.figures.style import RUN_COLOURS
from dashboard.views.compare import controls
from dashboard.views.compare.controls import LineId
from db.models import Run
from tests.dashboard.facts import facts_of


def facts(run_id: str, name: str | None = None) -> RunFacts:
    return facts_of(Run(id=run_id, project="p", name=name, config={}))


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
    assert controls.parse_line_ids(text) == named


def test_runs_with_the_same_name_get_their_id_and_segments_their_number() -> None:
    chosen = [
        (LineId("a"), facts("a", name="tiny")),
        (LineId("a", 1), facts("a", name="tiny")),
        (LineId("b"), facts("b", name="tiny")),
        (LineId("c"), facts("c")),
    ]
    labels = [line.label for line in controls.compared_lines(chosen)]
    assert labels == ["tiny (a)", "tiny (a), segment 1", "tiny (b)", "c"]


def test_no_two_lines_look_alike() -> None:
    looks = [
        (style.color, style.dash) for style in (controls.line_style(place, "") for place in range(controls.MAX_LINES))
    ]
    assert len(set(looks)) == controls.MAX_LINES
    assert [color for color, _ in looks[: len(RUN_COLOURS)]] == list(RUN_COLOURS)
