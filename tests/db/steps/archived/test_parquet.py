"""Columns of Arrow become arrays of numpy."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from db.steps.archived.parquet import column_from


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=40), st.integers(0, 10))
def test_an_arrow_column_becomes_the_same_numbers_with_nan_for_null(values: list[float | None], start: int) -> None:
    chunks = [pa.array(values, pa.float64()).slice(start), pa.array(values, pa.float64())]
    expected = [*values[start:], *values]
    found = column_from(pa.chunked_array(chunks))
    assert found.reported.tolist() == [value is not None for value in expected]
    assert [None if value != value else value for value in found.values.tolist()] == expected
