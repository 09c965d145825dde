"""The exact interval of a rate, against published values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detection.scorecard.rates import ERROR, at_most, poisson_interval


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (3, 0.6187, 8.767), (10, 4.795, 18.390), (100, 81.364, 121.627)],
)
def test_the_interval_is_that_of_the_tables(count: int, low: float, high: float) -> None:
    """Garwood 1936; 0 and 100 are in every textbook."""
    assert poisson_interval(count) == pytest.approx((low, high), abs=1e-3)


@settings(max_examples=40)
@given(st.integers(0, 1000))
def test_either_end_leaves_its_share_of_the_probability(count: int) -> None:
    low, high = poisson_interval(count)
    assert low <= count < high
    assert at_most(count, high) == pytest.approx(ERROR, rel=1e-6)
    assert count == 0 or 1 - at_most(count - 1, low) == pytest.approx(ERROR, rel=1e-6)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, not -1"):
        poisson_interval(-1)
