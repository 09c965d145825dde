"""The difference between two held-out losses is shown at the steps that both runs have reached, and nowhere else."""

import math

import numpy as np
import pytest

from dashboard.axes import PLAIN_STEPS
from dashboard.data.comparison.held_out import Difference, HeldOutCurve, difference
from db.queries import Series


def measured(**at: float) -> HeldOutCurve:
    """`measured(s10=2.5)`: 2.5 at place 10."""
    places = [float(name[1:].replace("_", ".")) for name in at]
    return HeldOutCurve(np.array(places), np.array(list(at.values())))


def points(found: Difference) -> list[tuple[float, float]]:
    return [(float(x), round(float(y), 9)) for x, y in zip(found.x, found.y, strict=True)]


@pytest.mark.parametrize(
    ("own", "baseline", "found", "exact"),
    [
        ({"s10": 3.0, "s20": 2.5}, {"s10": 3.5, "s20": 2.25}, [(10, -0.5), (20, 0.25)], True),
        ({"s30": 2.0, "s60": 1.5}, {"s20": 3.0, "s40": 2.5, "s60": 2.0}, [(60, -0.5)], True),  # half are common
        (
            {"s15": 2.0, "s25": 1.5, "s35": 1.0}, {"s10": 3.0, "s20": 2.0, "s30": 1.0}, [(15, -0.5), (25, 0.0)], False,
        ),  # few are, so the baseline is interpolated
        ({"s10": 2.0, "s20": 1.0}, {"s20": 1.5}, [(20, -0.5)], True),
        ({}, {"s1": 1.0}, [], True),
        ({"s1": 1.0}, {}, [], True),
        ({"s5": 1.0}, {"s1": 1.0, "s3": 1.0}, [], False),
    ],
)  # fmt: skip
def test_runs_are_subtracted_where_both_were_measured_or_the_baseline_can_be_interpolated(
    own: dict[str, float], baseline: dict[str, float], found: list[tuple[float, float]], exact: bool
) -> None:
    difference_found = difference(measured(**own), measured(**baseline))
    assert points(difference_found) == found
    assert difference_found.exact is exact or not found


def test_counted_tokens_that_differ_by_their_rounding_are_the_same_place() -> None:
    exact = HeldOutCurve(np.array([3e12, 6e12]), np.array([2.0, 1.0]))
    rounded = HeldOutCurve(np.array([3e12 + 0.4, 6e12 - 0.4]), np.array([2.5, 1.5]))
    assert difference(exact, rounded).exact


def test_a_loss_that_was_not_finite_is_no_number_in_the_difference_and_none_is_drawn_across_it() -> None:
    broken = measured(s10=3.0, s20=math.nan, s30=2.0)
    assert np.isnan(difference(measured(s10=3.0, s20=2.5, s30=2.0), broken).y).tolist() == [False, True, False]
    assert np.isnan(difference(broken, measured(s10=3.0, s20=2.5, s30=2.0)).y).tolist() == [False, True, False]
    assert np.isnan(difference(measured(s12=3.0, s22=2.5, s29=2.0), broken).y).all()


def test_measurements_are_the_last_of_each_bucket_and_none_where_it_was_not_finite() -> None:
    few = Series([0, 8], [7, 15], [1.0, 1.0], [2.0, 2.0], [1.5, 1.5], [1.25, 1.25], [8, 7], [0, 1], [2.0, 2.0])
    found = HeldOutCurve.from_series(few, PLAIN_STEPS)
    assert found.x.tolist() == [7, 15]
    assert found.y.tolist() == pytest.approx([1.25, math.nan], nan_ok=True)
