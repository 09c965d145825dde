"""A row by itself: the same as columns of length 1."""

import numpy as np

from monitor.detection.row import Row
from monitor.detection.rows import Rows


def test_a_row_is_the_same_as_columns_and_back() -> None:
    row = Row(7, {"loss": np.nan, "lr": 3e-4, "grad_norm": np.inf}, 1.8e9)
    again = Row.of(row.as_rows())
    assert again is not None
    assert (again.step, again.time) == (7, 1.8e9)
    np.testing.assert_equal(again.values, row.values)
    assert row.as_rows().present["loss"].all()


def test_columns_without_times_make_a_row_without_one() -> None:
    row = Row.of(Rows.of([3], loss=[2.5]))
    assert row == Row(3, {"loss": 2.5})
    assert row.as_rows().times is None


def test_what_was_not_reported_has_no_row_because_a_row_cannot_say_so() -> None:
    assert Row.of(Rows.of([3], loss=[None], grad_norm=[1.0])) is None
