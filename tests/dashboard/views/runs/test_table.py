"""The table of runs: its columns and how they are shown."""

import json
import math
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dashboard.views.runs.table import CellFormat, values_column


def test_numbers_are_shown_with_few_digits_and_sorted_by_their_values_of_which_nan_and_infinity_are_some() -> None:
    loss = values_column("last loss", [2.123456789, math.nan, None, -math.inf], 5)
    assert loss.kind is CellFormat.NUMBER
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
