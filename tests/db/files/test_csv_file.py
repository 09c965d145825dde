"""A CSV is read by Arrow, and what Arrow refuses is found again by its line."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.files import csv_file

TYPES = {"step": pa.int64(), "live": pa.string(), "loss": pa.float64()}
RULES = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
digits = st.sampled_from(["0", "-0", "12", "+3", "1.5", ".5", "5.", "-1.5e-3", "1e999", "1_0", "0x10", "9" * 20])
words = st.sampled_from(["", " ", " 7 ", "NaN", "nan", "inf", "-Infinity", "high", "\u0661", "\x00", "true", "=1+1"])


@pytest.mark.slow
@RULES
@given(rows=st.lists(st.lists(digits | words, min_size=2, max_size=4), min_size=1, max_size=4))
def test_a_bad_line_is_found_exactly_where_arrow_refuses_the_file(tmp_path: Path, rows: list[list[str]]) -> None:
    path = tmp_path / "f.csv"
    path.write_text("\n".join(["step,live,loss", *map(",".join, rows)]), encoding="utf-8")
    found = csv_file.first_bad_line(path, TYPES)
    try:
        with csv_file.read_batches(path, TYPES, without=["live"]) as batches:
            num_rows = sum(map(len, batches))
    except pa.ArrowInvalid:
        assert found is not None
        assert found.startswith("line ")
    else:
        assert found is None
        assert num_rows == len(rows)


def test_a_row_is_on_the_line_on_which_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text('step,loss\r\n0,1\r\n\r\n1,"2\n"\r\n2,3\r\n', encoding="utf-8")
    assert [csv_file.line_of(path, row) for row in (1, 2, 3)] == [2, 4, 6]
