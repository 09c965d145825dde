"""The duration of a step, from the times of the rows."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import Rows
from monitor.detection.interventions.step_times import MIN_DURATIONS, StepTimes


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
