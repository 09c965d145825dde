"""Buckets of buckets are the buckets of the values."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from db.steps.buckets import NARROWEST, Buckets, coarsen, joined, nothing, points, split_by_level, width

values = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=80)


@given(values, st.sampled_from([2, 4, 16]), st.sampled_from([1, 4, 16]))
def test_coarsening_in_two_steps_is_coarsening_at_once(column: list[float], fine: int, more: int) -> None:
    steps = np.arange(len(column)) * 3
    single = points(np.zeros(len(column), dtype=np.int64), steps, np.array(column))
    twice, once = coarsen(coarsen(single, fine), fine * more), coarsen(single, fine * more)
    for name in ("start", "first_step", "last_step", "count", "non_finite", "min", "max", "first", "last"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(once, name), err_msg=name)
    # Rounding is relative to the largest value in the bucket, not to the mean: values of both signs cancel.
    largest = np.fmax(np.abs(once.min), np.abs(once.max))
    scaled_twice, scaled_once = (each.mean / np.where(largest > 0, largest, 1.0) for each in (twice, once))
    np.testing.assert_allclose(scaled_twice, scaled_once, rtol=0, atol=1e-12)


def test_the_mean_of_huge_values_is_finite_and_that_of_equal_ones_is_theirs() -> None:
    huge = points(np.zeros(3, dtype=np.int64), np.arange(3), np.array([1.7e308, 1.7e308, 1.7e308]))
    assert coarsen(huge, 4).mean.tolist() == [1.7e308]
    equal = points(np.zeros(7, dtype=np.int64), np.arange(7), np.full(7, 0.1))
    assert coarsen(equal, 8).mean.tolist() == [0.1]


def test_a_bucket_without_a_finite_value_has_counts_alone() -> None:
    strange = coarsen(points(np.zeros(2, dtype=np.int64), np.arange(2), np.array([math.inf, math.nan])), 2)
    assert (strange.count.tolist(), strange.non_finite.tolist()) == ([0], [2])
    assert all(math.isnan(getattr(strange, name)[0]) for name in ("min", "max", "mean", "first", "last"))


def test_keys_are_never_mixed_and_are_sorted() -> None:
    def part(key: int) -> Buckets:
        return points(np.full(2, key), np.arange(2), np.array([float(key), key + 1.0]))

    both = coarsen(joined([part(5), nothing(), part(2)]), 2)
    assert (both.key.tolist(), both.last.tolist()) == ([2, 5], [3.0, 6.0])
    assert len(joined([])) == 0


def test_level_ranges_cover_a_range_once_and_reach_into_no_open_bucket() -> None:
    spans = [(0, 9000, 9000), (37, 8995, 9000), (5, 9, 9), (17, 70, 64), (0, 5000, NARROWEST), (100, 5000, 4999)]
    for low, high, sealed in spans:
        parts = list(split_by_level(4, low, high, sealed))
        assert [part[1] for part in parts] == [low, *(part[2] for part in parts[:-1])]
        assert parts[-1][2] == high
        assert all(level == 0 or (end <= sealed and begin % width(level) == 0) for level, begin, end in parts)
