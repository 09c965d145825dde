import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.estimate import Estimate


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_the_standard_error_is_the_sample_deviation_over_the_root_of_the_number(values: list[float]) -> None:
    estimate = Estimate.of(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    assert estimate.mean == pytest.approx(mean, abs=1e-6)
    assert estimate.standard_error == pytest.approx(math.sqrt(variance / len(values)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.95, 1.97, 1.94], "1.9533 +- 0.0088"),
        ([100.0, 140.0], "120 +- 20"),
        ([0.0, 0.0], "0"),
        ([2.5], "2.5"),
        ([1.0, math.inf], "nan"),
    ],
)
def test_an_estimate_is_shown_with_two_digits_of_its_error(values: list[float], shown: str) -> None:
    assert str(Estimate.of(values)) == shown


def test_many_estimates_of_a_known_mean_scatter_by_their_standard_error() -> None:
    draw = random.Random(0)
    estimates = [Estimate.of(draw.gauss(3.0, 1.0) for _ in range(7)) for _ in range(400)]
    scatter = statistics.stdev(each.mean for each in estimates)
    typical = math.sqrt(statistics.fmean(each.standard_error**2 for each in estimates))
    assert scatter == pytest.approx(typical, rel=0.15)
