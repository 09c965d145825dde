"""The gaps between rows, and the duration of a step."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import Rows
from monitor.detection.encoding import dump, load
from monitor.detection.throughput.durations import (
    BLOCK_ROWS,
    FIRST_SECONDS,
    MAX_AGE_ROWS,
    MIN_DURATIONS,
    MIN_SECONDS,
    NUM_KEPT,
    RowGaps,
    StepTimes,
    stall_limit,
)
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


def test_an_evaluation_of_a_constant_duration_stays_usual_for_longer_than_a_gap_counts() -> None:
    seconds = np.full(3 * MAX_AGE_ROWS, 2.0)
    seconds[500::500] = 600.0
    gaps = RowGaps()
    for part in timed(seconds).split(1000):
        gaps.update(part)
        assert gaps.limit() == (2400.0 if gaps.num_gaps > 1000 else 900.0)
    assert len(gaps.longest) <= NUM_KEPT * (MAX_AGE_ROWS // BLOCK_ROWS + 1)


def test_rows_in_one_report_have_the_gaps_of_rows_one_by_one_over_several_blocks() -> None:
    seconds = np.random.default_rng(0).integers(1, 40, 3 * BLOCK_ROWS).astype(np.float64)
    rows, whole, single = timed(seconds), RowGaps(), RowGaps()
    whole.update(rows)
    assert rows.times is not None
    for time in rows.times.tolist():
        single.add(time)
    assert whole == single


def test_a_stored_state_with_the_four_longest_gaps_of_a_run_goes_on() -> None:
    state = {"num_gaps": 700, "seconds": 3000.0, "longest": [[600.0, 600], [590.0, 300], [9.0, 5]], "last_time": None}
    gaps = load(RowGaps, state)
    assert gaps.limit() == 2360.0
    gaps.update(timed(np.full(100, 2.0)))
    assert gaps.limit() == 2360.0


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
        parts = load(RowGaps, dump(parts))
        parts.update(part)
    assert whole == parts


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_no_silence_shorter_than_the_usual_is_a_stall(one: float, other: float) -> None:
    longest, second = max(one, other), min(one, other)
    assert stall_limit(longest, second) >= max(MIN_SECONDS, min(second, 1e6))


def rows(first: int, times: list[float]) -> Rows:
    return Rows(np.arange(first, first + len(times)), {}, {}, np.array(times))


def test_the_median_ignores_a_pause_and_needs_a_few_steps() -> None:
    steps = StepTimes()
    steps.update(rows(0, [0.0, 90.0, *(90.0 + 2.0 * k for k in range(1, MIN_DURATIONS - 1))]))
    assert steps.median() is None
    steps.update(rows(MIN_DURATIONS, [200.0]))
    assert steps.median() == 2.0


def test_steps_that_are_reported_every_tenth_take_a_tenth_of_the_time_between_them() -> None:
    steps = StepTimes()
    steps.update(Rows(np.arange(0, 200, 10), {}, {}, np.arange(0.0, 100.0, 5.0)))
    assert steps.median() == 0.5


def test_neither_a_clock_that_was_set_back_nor_the_way_to_another_segment_is_a_step() -> None:
    steps = StepTimes()
    steps.update(rows(0, [100.0, 101.0, 50.0, 51.0]))
    steps.rewind()
    steps.update(rows(2, [900.0, 901.0]))
    assert steps.durations == [1.0, 1.0, 1.0]
    steps.update(rows(3, [902.0]))  # the same step again, without a new segment
    steps.update(rows(1, [903.0]))
    assert steps.durations == [1.0, 1.0, 1.0]


def test_rows_without_times_teach_nothing() -> None:
    steps = StepTimes()
    steps.update(Rows.of(range(50), loss=[1.0] * 50))
    assert steps.median() is None


@given(st.lists(st.floats(0, 1e6), max_size=80), st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_the_state_does_not_depend_on_how_the_rows_are_cut_and_is_restored_exactly(
    times: list[float], sizes: list[int]
) -> None:
    whole, parts, at = StepTimes(), StepTimes(), 0
    whole.update(rows(0, times))
    while at < len(times):
        size = sizes[at % len(sizes)]
        parts.update(rows(at, times[at : at + size]))
        parts = StepTimes.from_dict(json.loads(json.dumps(parts.to_dict())))
        at += size
    assert parts.to_dict() == whole.to_dict()
