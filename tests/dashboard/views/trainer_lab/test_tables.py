"""The tables of the Trainer lab: the numbers that docs/lesson.md has, and values that were never meant."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from dashboard.data.trainer.lab_results import LabResults
from dashboard.data.trainer.lab_results_file import parse, shipped
from dashboard.figures.compute import PUBLISHED
from dashboard.views.trainer_lab import tables
from tests.dashboard.views.trainer_lab.results import SWEEPS, lines

LESSON = (Path(__file__).parents[4] / "docs" / "lesson.md").read_text(encoding="utf-8")


def lesson_table(first_column: str, *, containing: str) -> list[Mapping[str, str]]:
    """The rows of the table of docs/lesson.md with this first column and another one, in the signs of the page."""
    for text in re.findall(r"(?:^\|.*\n)+", LESSON, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines())
        if head[0] == first_column and containing in head:
            return [
                dict(zip(head, (cell.strip("`").replace("+-", "\N{PLUS-MINUS SIGN}") for cell in row), strict=True))
                for row in rows
            ]
    raise AssertionError(first_column)


@pytest.fixture(scope="module")
def measured() -> LabResults:
    results = shipped()
    assert results is not None
    return results


def assert_same(table: pd.DataFrame, rows: list[Mapping[str, str]], columns: Mapping[str, str]) -> None:
    for ours, lesson in columns.items():
        assert table[ours].tolist() == [row[lesson] for row in rows], ours


def test_the_switches_are_those_of_the_lesson(measured: LabResults) -> None:
    rows = lesson_table("recipe", containing="bits/character")
    columns = {"Held-out loss": "held-out", "Bits per byte": "bits/byte", "Bits per character": "bits/character"}
    table = tables.switches(measured.switches)
    table = table[table["Seeds"].astype(int) > 1]  # the others are on the trainer's page
    assert_same(table, rows, {"Recipe": "recipe", "Perplexity": "perplexity", **columns})


def test_the_sizes_and_their_law_are_those_of_the_lesson(measured: LabResults) -> None:
    rows = lesson_table("width", containing="law")
    table = tables.scaling(measured.scaling)
    columns = {"Parameters": "parameters", "Tokens": "tokens", "FLOPs (6ND)": "FLOPs (6ND)"}
    assert_same(table, rows, {"Width": "width", "Held-out loss": "held-out loss", **columns})
    assert table["Law"].astype(float).tolist() == pytest.approx([float(row["law"]) for row in rows], abs=1e-3)


def test_every_published_run_is_listed_and_estimates_are_marked() -> None:
    table = tables.published()
    marked = {name.removesuffix(" (estimated)") for name in table["Model"] if name.endswith("(estimated)")}
    assert marked == {run.name for run in PUBLISHED if run.is_estimated}
    (gpt4,) = table[table["Model"].str.startswith("GPT-4")].to_dict("records")
    assert (gpt4["Parameters"], gpt4["FLOPs (6ND)"], gpt4["Reported FLOPs"]) == ("unpublished", "-", "2.10e+25")
    rows = {row["model"] for row in lesson_table("model", containing="6ND")}
    assert rows == {run.name for run in PUBLISHED}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", 1e308, -1e308, 5e-324, 0.0])
def test_extreme_losses_stay_in_their_cells(value: object) -> None:
    names = ("held_out_loss", "final_loss")
    results = parse("mine.jsonl", lines(*(each | {name: value for name in names if name in each} for each in SWEEPS)))
    cells = [
        *tables.switches(results.switches).iloc[0],
        *tables.scaling(results.scaling).iloc[0],
        *tables.unstable(results.unstable).iloc[0],
    ]
    assert all(0 < len(cell) < 30 for cell in cells)
    assert value != "NaN" or "not finite" in cells
