"""How long a silence must last follows from the run's own gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.throughput.row_gaps import FIRST_SECONDS, MAX_AGE_ROWS, MIN_SECONDS, RowGaps, stall_limit
from tests.monitor.detection.throughput.runs import durations, timed


def limit_of(seconds: list[float] | np.ndarray, arrivals: tuple[float, ...] = ()) -> float:
    gaps = RowGaps()
    gaps.update(timed(np.asarray(seconds, dtype=np.float64)))
    return round(gaps.limit(arrivals), 3)


def test_a_fast_run_is_stalled_after_two_minutes_and_a_young_one_after_ten() -> None:
    assert limit_of(durations(100)) == MIN_SECONDS
    assert limit_of(durations(5)) == FIRST_SECONDS


def test_a_slow_run_has_several_times_its_longest_usual_gap() -> None:
    assert limit_of([200.0] * 50) == 800.0


def test_the_first_checkpoint_of_slow_steps_is_no_stall() -> None:
    assert limit_of([20.0] * 50) == 200.0


@pytest.mark.parametrize(("evaluations", "limit"), [(1, 900.0), (2, 2400.0)])
def test_what_happened_once_may_happen_again_and_what_happened_twice_is_usual(evaluations: int, limit: float) -> None:
    seconds = [2.0] * 1000
    for number in range(evaluations):
        seconds[300 * (number + 1)] = 600.0
    assert limit_of(seconds) == limit


def test_a_hang_of_a_night_that_ended_by_itself_does_not_make_a_night_normal() -> None:
    assert limit_of([2.0] * 100 + [30_000.0] + [2.0] * 100) == 3600.0


def test_a_gap_is_forgotten_after_many_rows() -> None:
    assert limit_of([2.0] * 100 + [600.0] + [2.0] * (MAX_AGE_ROWS + 10)) == MIN_SECONDS


def test_rows_that_arrive_in_bulk_have_the_gaps_of_their_reports() -> None:
    assert limit_of(durations(500), (600.0, 0.1, 0.1, 600.0, 0.1)) == 2400.0
    assert limit_of(durations(500), (1.0, 0.1, 1.0)) == MIN_SECONDS


def test_a_pause_between_two_segments_is_no_gap() -> None:
    gaps = RowGaps()
    gaps.update(timed(durations(100)))
    gaps.skip()
    later = timed(durations(100))
    assert later.times is not None
    later.times[:] += 50_000.0
    gaps.update(later)
    assert gaps.limit() == MIN_SECONDS


@given(st.lists(st.floats(0.0, 1e5), max_size=60), st.integers(1, 20))
def test_the_grouping_of_rows_does_not_matter(seconds: list[float], cut: int) -> None:
    rows = timed(np.asarray(seconds, dtype=np.float64))
    whole, parts = RowGaps(), RowGaps()
    whole.update(rows)
    for part in rows.split(cut):
        parts = RowGaps.from_dict(parts.to_dict())
        parts.update(part)
    assert whole == parts


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_no_silence_shorter_than_the_usual_is_a_stall(one: float, other: float) -> None:
    longest, second = max(one, other), min(one, other)
    assert stall_limit(longest, second) >= max(MIN_SECONDS, min(second, 1e6))
