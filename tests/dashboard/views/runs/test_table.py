"""The table of runs: its columns and how they are shown."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dashboard.figures.sparkline import points
from dashboard.views.runs.columns import column
from dashboard.views.runs.groups import grouped
from dashboard.views.runs.table import Kind, TableColumn, group_table, run_table, values_column
from tests.dashboard.views.runs.listed import NOW, listed

ODD = {
    "Run": [1, {"a": math.nan}],
    "lr": math.inf,
    "seed": 7,
    "name\u202e": "x\u202ey",
    **{f"k{at}": at for at in range(1000)},
}
ROWS = [
    listed("a", config={"lr": 1e-4, "seed": 7}, metrics={"loss": 2.5, "mfu": 0.25}, tags=["x"], steps=12),
    listed("b", config=ODD, metrics={"loss": math.nan}),
    listed("c"),
]
LABELS = ("lr", "seed", "Run", "name\u202e", "k999", "last loss", "last mfu", "nothing")


COLUMNS = [column(label) for label in LABELS]


def cells(table: Sequence[TableColumn]) -> dict[str, list[Any]]:
    """By label; two columns of one name are one after the other."""
    found: dict[str, list[Any]] = {}
    for each in table:
        found.setdefault(each.label, []).extend(each.cells)
    return found


def test_each_run_has_a_row_with_its_state_sparkline_and_chosen_columns() -> None:
    found = cells(run_table(ROWS, COLUMNS, NOW))
    assert found["Run"][:3] == ["gpt / a", "gpt / b", "gpt / c"]
    assert found["Loss"] == [points([3.5, 2.5]), None, None]
    assert (found["Steps"], found["seed"]) == (["12", "0", "0"], ["7", "7", None])
    assert found["last mfu"] == ["0.25", None, None]
    assert (found["Last report"], found["Tags"]) == (["just now"] * 3, [["x"], [], []])


def test_a_column_with_a_value_that_is_no_number_is_text() -> None:
    found = cells(run_table(ROWS, COLUMNS, NOW))
    assert found["Run"][3:] == [None, '[1, {"a": NaN}]', None]
    assert found["name\u202e"] == [None, r"x\u202ey", None]
    assert (found["nothing"], found["k999"]) == ([None] * 3, [None, "999", None])


def test_numbers_are_shown_with_few_digits_and_sorted_by_their_values_of_which_nan_and_infinity_are_some() -> None:
    loss = values_column("last loss", [2.123456789, math.nan, None, -math.inf], 5)
    assert loss.kind is Kind.NUMBER
    assert loss.cells == ["2.1235", "NaN", None, "-infinity"]
    assert loss.values == [2.123456789, "NaN", None, "-Infinity"]
    assert values_column("lr", [1e-4, 10**400], 8).values == [1e-4, "Infinity"]
    mixed = values_column("lr", [10.0, "auto", 9.5, None, math.nan], 8)
    assert (mixed.cells, mixed.values) == (["10", "auto", "9.5", None, "NaN"], [10.0, "auto", 9.5, None, "NaN"])


@given(st.lists(st.none() | st.integers() | st.floats() | st.text() | st.booleans() | st.lists(st.integers())))
def test_every_column_can_be_sent_to_the_browser(values: list[Any]) -> None:
    found = values_column("x", values, 5)
    assert len(found.cells) == len(values)
    assert [each is None for each in found.cells] == [each is None for each in values]
    assert [each is None for each in found.values] == [each is None for each in values]
    json.dumps(asdict(found), allow_nan=False)


def test_a_group_has_a_row_with_the_number_of_its_runs_and_the_spread_of_each_column() -> None:
    columns = [column("last loss")]
    assert cells(group_table(grouped(ROWS, by=["seed"], columns=columns), ["seed"], columns)) == {
        "seed": ["7", "-"], "Runs": ["2", "1"], "last loss: mean": ["2.5", None], "last loss: SD": [None, None],
        "last loss: n": ["1", "0"],
    }  # fmt: skip
