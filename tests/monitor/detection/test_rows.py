import numpy as np
import pytest

from monitor.detection.rows import Rows


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
    with pytest.raises(ValueError, match=r"metrics\[loss\] has 1 values for 2 steps"):
        Rows.of([0, 1], loss=[1.0])
    with pytest.raises(ValueError, match="strictly increasing"):
        Rows.of([1, 1], loss=[1.0, 1.0])
