"""The table of runs: its columns and how they are shown."""

import math
from typing import Any

from dashboard.views.runs.columns import column
from dashboard.views.runs.groups import grouped
from dashboard.views.runs.table import group_table, run_table
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


def cells() -> dict[str, list[Any]]:
    """By label; the two columns named Run are one after the other."""
    data, shown = run_table(ROWS, [column(label) for label in LABELS], NOW)
    found: dict[str, list[Any]] = {}
    for name, values in data.to_pydict().items():
        found.setdefault(shown[name]["label"], []).extend(values)
    return found


def test_each_run_has_a_row_with_its_link_state_sparkline_and_chosen_columns() -> None:
    found = cells()
    assert found["Run"][:3] == ["gpt / a", "gpt / b", "gpt / c"]
    assert found["Open"] == ["run?run=id-a", "run?run=id-b", "run?run=id-c"]
    assert found["Loss"] == [[3.5, 2.5], [], []]
    assert (found["Steps"], found["seed"], found["last mfu"]) == ([12, 0, 0], [7.0, 7.0, None], [0.25, None, None])


def test_values_that_a_number_column_cannot_show_make_it_text() -> None:
    found = cells()
    assert found["last loss"] == ["2.5", "NaN", None]
    assert found["lr"] == ["0.0001", "infinity", None]
    assert found["Run"][3:] == [None, '[1, {"a": NaN}]', None]
    assert found["name\u202e"] == [None, r"x\u202ey", None]
    assert (found["nothing"], found["k999"]) == ([None] * 3, [None, 999.0, None])


def test_a_group_has_a_row_with_the_number_of_its_runs_and_the_spread_of_each_column() -> None:
    columns = [column("last loss")]
    data, shown = group_table(grouped(ROWS, by=["seed"], columns=columns), ["seed"], columns)
    found = {shown[name]["label"]: values for name, values in data.to_pydict().items()}
    assert found == {
        "seed": ["7", "-"], "Runs": [2, 1], "last loss: mean": [2.5, None], "last loss: SD": [None, None],
        "last loss: n": [1, 0],
    }  # fmt: skip
