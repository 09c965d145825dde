"""What the URL wants compared, and how each line is named and looks."""

from typing import Any

import pytest

from dashboard.data.facts import RunFacts
from dashboard.data.progress import Progress
from dashboard.figures.axis import XAxis
from dashboard.figures.style import RUN_COLOURS
from dashboard.views.compare import entries
from dashboard.views.compare.entries import Choice
from db.models import Run


def facts(run_id: str, *, name: str | None = None, metrics: tuple[str, ...] = (), **config: Any) -> RunFacts:
    """Of a run about which little is known."""
    run = Run(id=run_id, project="p", name=name, config=config)
    nothing: Any = {"segments": [], "incidents": [], "interventions": [], "orders": {}, "ledger": [], "events": []}
    return RunFacts(
        run=run,
        progress=Progress(0, None, None),
        metrics=list(metrics),
        newest={},
        mfu=None,
        **nothing,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b:1", [Choice("a"), Choice("b", 1)]),
        ("a,a,a:0", [Choice("a"), Choice("a", 0)]),
        ("", []),
        (" a , ,<b>,c:x,:3, d:\u00b2", [Choice("a")]),
    ],
)
def test_the_url_names_each_run_or_segment_once_and_nonsense_is_left_out(text: str, named: list[Choice]) -> None:
    assert entries.choices(text) == named


def test_a_choice_is_written_as_it_is_read() -> None:
    assert entries.choices(",".join(map(str, (Choice("a.b-c"), Choice("d", 12))))) == [Choice("a.b-c"), Choice("d", 12)]


def test_runs_of_one_name_are_told_apart_by_their_id_and_segments_by_their_number() -> None:
    chosen = [
        (Choice("a"), facts("a", name="tiny")),
        (Choice("a", 1), facts("a", name="tiny")),
        (Choice("b"), facts("b", name="tiny")),
        (Choice("c"), facts("c")),
    ]
    labels = [entry.label for entry in entries.entries(chosen)]
    assert labels == ["tiny (a)", "tiny (a), segment 1", "tiny (b)", "c"]


def test_a_long_name_is_cut_and_two_that_begin_alike_keep_apart() -> None:
    names = entries.run_names([Run(id=each, name=f"{'x' * 60} {each}") for each in ("a", "b")])
    assert names["a"] != names["b"]
    assert all(len(name) < 60 for name in names.values())


def test_no_two_lines_look_alike() -> None:
    looks = [(style.color, style.dash) for style in (entries.style(place, "") for place in range(entries.MOST))]
    assert len(set(looks)) == entries.MOST
    assert [color for color, _ in looks[: len(RUN_COLOURS)]] == list(RUN_COLOURS)


def test_a_name_cannot_bring_markup_into_the_figure() -> None:
    assert "<b>" not in entries.style(0, "<b>bold</b>").note


@pytest.mark.parametrize(
    ("facts", "axes"),
    [
        (facts("a", metrics=("loss",), num_parameters=10), [XAxis.STEP]),
        (facts("a", metrics=("loss", "tokens")), [XAxis.STEP, XAxis.TOKENS]),
        (facts("a", metrics=("loss", "tokens"), num_parameters=10), [XAxis.STEP, XAxis.TOKENS, XAxis.FLOPS]),
    ],
)
def test_a_run_lies_along_what_it_tells(facts: RunFacts, axes: list[XAxis]) -> None:
    (entry,) = entries.entries([(Choice("a"), facts)])
    assert [x_axis for x_axis in (XAxis.STEP, XAxis.TOKENS, XAxis.FLOPS) if entries.lies_along(entry, x_axis)] == axes
