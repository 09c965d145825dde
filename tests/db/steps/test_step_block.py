"""Columns are joined as they are, and the name of one in a table of steps is that of its metric."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from db.steps.step_block import OWN_COLUMNS, MetricColumn, column_of, metric_of

numbers = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=9)


@given(st.from_regex(r"(metric\.){0,3}(segment|step|time|live|loss|metric)", fullmatch=True))
def test_the_name_of_a_metric_follows_from_its_column(name: str) -> None:
    assert column_of(name) not in OWN_COLUMNS
    assert metric_of(column_of(name)) == name


@given(numbers, numbers)
def test_joined_columns_are_the_column_of_all_values(first: list[float | None], second: list[float | None]) -> None:
    joined = MetricColumn.joined([MetricColumn.of(first), MetricColumn.of(second)])
    assert same(joined, MetricColumn.of(first + second))


def same(one: MetricColumn, other: MetricColumn) -> bool:
    arrays = [(one.values, other.values), (one.reported, other.reported), (one.finite, other.finite)]
    return one.plain == other.plain and all(np.array_equal(a, b, equal_nan=True) for a, b in arrays)
