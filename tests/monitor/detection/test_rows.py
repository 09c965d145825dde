import numpy as np
import pytest

from monitor.detection.rows import Row, Rows


def test_an_absent_value_is_not_a_reported_nan() -> None:
    rows = Rows.of([0, 1, 2], loss=[1.0, None, float("nan")])
    assert rows.present["loss"].tolist() == [True, False, True]
    assert np.isnan(rows.metrics["loss"][1:]).all()


def test_parts_of_the_rows_are_the_rows() -> None:
    rows = Rows.of(range(10), loss=[float(step) for step in range(10)])
    parts = list(rows.split(4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert np.concatenate([part.metrics["loss"] for part in parts]).tolist() == rows.metrics["loss"].tolist()


def test_columns_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"metrics\[loss\] has 1 value for 2 steps"):
        Rows.of([0, 1], loss=[1.0])
    with pytest.raises(ValueError, match="strictly increasing"):
        Rows.of([1, 1], loss=[1.0, 1.0])


def test_the_newest_rows_are_a_copy_that_keeps_no_others_in_memory() -> None:
    rows = Rows.of([1, 2, 3], loss=[1.0, None, 3.0])
    newest = rows.newest(2)
    assert (newest.steps.tolist(), newest.present["loss"].tolist()) == ([2, 3], [False, True])
    assert newest.steps.base is None
    assert newest.metrics["loss"].base is None
    assert len(rows.newest(9)) == 3


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
