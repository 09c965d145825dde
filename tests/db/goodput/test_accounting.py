"""Every second of a run has exactly one cause, and it is the right one."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.goodput.accounting import (
    Breakdown,
    RunTimes,
    SegmentTimes,
    Stretch,
    TimeCause,
    break_down,
    cause_of,
    hang_seconds,
    merged,
)
from lossguard.vocabulary.states import RunState, SegmentReason


def steps(begin: float, end: float, num: int = 1, **more: Any) -> Stretch:
    return Stretch(begin=begin, end=end, num_steps=num, is_single=num == 1, **more)


def segment(opened_at: float, *stretches: Stretch, cause: TimeCause = TimeCause.STARTUP) -> SegmentTimes:
    return SegmentTimes(opened_at=opened_at, cause=cause, stretches=stretches)


def times(*segments: SegmentTimes, until: float, **more: Any) -> RunTimes:
    values: dict[str, Any] = {"started_at": 0.0, "until": until, "state": RunState.FINISHED, "segments": segments}
    return RunTimes(**values | more)


def spent(breakdown: Breakdown) -> dict[TimeCause, float]:
    """Without the causes that took no time."""
    return {cause: round(seconds, 6) for cause, seconds in breakdown.seconds.items() if seconds > 1e-9}


def test_a_run_without_trouble_trains_from_its_first_step_to_its_last() -> None:
    found = break_down(times(segment(30.0, steps(30.0, 31.0), steps(31.0, 131.0, 100)), until=132.0))
    assert spent(found) == {TimeCause.STARTUP: 30.0, TimeCause.TRAINING: 101.0, TimeCause.OTHER: 1.0}
    assert found.goodput == pytest.approx(101 / 132)


def old(end: float = 50.0, *more: Stretch) -> SegmentTimes:
    """A segment that trains, a second a step."""
    return segment(0.0, steps(0.0, 1.0), steps(1.0, end, int(end) - 1), *more)


def discarded(end: float, cause: TimeCause) -> SegmentTimes:
    return old(50.0, steps(50.0, end, int(end) - 50, cause=cause))


def new(opened_at: float, first: float, cause: TimeCause, end: float | None = None) -> SegmentTimes:
    """The next segment, with its first step at `first` and, if it goes on, its last one at `end`."""
    more = [] if end is None else [steps(first, end, int(end - first))]
    return segment(opened_at, steps(opened_at, first), *more, cause=cause)


def long_step(**more: Any) -> SegmentTimes:
    return old(101.0, steps(101.0, 702.0, **more), steps(702.0, 703.0))


SPIKE, REWIND, RESTART, TRAINING = TimeCause.SPIKE, TimeCause.REWIND, TimeCause.RESTART, TimeCause.TRAINING
WAITING, OTHER, HANG = TimeCause.WAITING, TimeCause.OTHER, TimeCause.HANG
SAVES = steps(1.0, 101.0, 50, checkpoint_seconds=20.0, evaluation_seconds=30.0)
FINISHED: dict[str, tuple[RunTimes, dict[TimeCause, float]]] = {
    "discarded steps and the restore are lost to the spike": (
        times(discarded(60.0, SPIKE), new(64.0, 65.0, SPIKE, 90.0), until=90.0),
        {TRAINING: 76.0, SPIKE: 14.0},
    ),
    "a segment that its first step opens has trained before": (
        times(discarded(60.0, REWIND), new(61.0, 61.0, REWIND, 90.0), until=90.0),
        {TRAINING: 80.0, REWIND: 10.0},
    ),
    "the time between two processes is lost to the restart": (
        times(old(), new(600.0, 700.0, RESTART, 720.0), until=720.0),
        {TRAINING: 71.0, RESTART: 649.0},
    ),
    "an old process that goes on is not the run once another one has taken over": (
        times(discarded(500.0, RESTART), new(60.0, 61.0, RESTART, 100.0), until=100.0),
        {TRAINING: 90.0, RESTART: 10.0},
    ),
    "reported saves and evaluations are no training": (
        times(segment(0.0, steps(0.0, 1.0), SAVES), until=101.0),
        {TRAINING: 51.0, TimeCause.CHECKPOINT: 20.0, TimeCause.EVALUATION: 30.0},
    ),
    "time between steps that the step time leaves out is other": (
        times(segment(0.0, steps(0.0, 1.0), steps(1.0, 101.0, 50, step_seconds=1.5)), until=101.0),
        {TRAINING: 76.0, OTHER: 25.0},
    ),
    "a step that nothing explains hangs": (times(long_step(), until=703.0), {TRAINING: 103.0, HANG: 600.0}),
    "also if the loop counts it as step time": (
        times(long_step(step_seconds=601.0), until=703.0),
        {TRAINING: 103.0, HANG: 600.0},
    ),
    "a long step with a reported evaluation does not hang": (
        times(long_step(evaluation_seconds=600.0), until=703.0),
        {TRAINING: 103.0, TimeCause.EVALUATION: 600.0},
    ),
    "a pause that was announced does not hang": (
        times(long_step(pause_seconds=600.0), until=703.0),
        {TRAINING: 103.0, OTHER: 600.0},
    ),
    "a pause that lasts until the row after it leaves the time of its step": (
        times(long_step(pause_seconds=601.0), until=703.0),
        {TRAINING: 103.0, OTHER: 600.0},
    ),
    "a hold waits for a person and not for the rollback that ends it": (
        times(old(), new(1000.0, 1001.0, SPIKE), until=1001.0, holds=[(52.0, 998.0)]),
        {TRAINING: 51.0, WAITING: 946.0, SPIKE: 4.0},
    ),
    "steps that were discarded after a person was asked are lost to the waiting": (
        times(discarded(90.0, SPIKE), new(92.0, 93.0, SPIKE), until=93.0, decisions=[(55.0, 89.0)]),
        {TRAINING: 51.0, WAITING: 34.0, SPIKE: 8.0},
    ),
    "a proposal that discards nothing loses nothing": (
        times(old(), until=50.0, decisions=[(5.0, 45.0)]),
        {TRAINING: 50.0},
    ),
}


@pytest.mark.parametrize("what", FINISHED)
def test_time_of_a_finished_run_has_its_cause(what: str) -> None:
    run, expected = FINISHED[what]
    assert spent(break_down(run)) == expected


@pytest.mark.parametrize(("seconds", "usual", "lost"), [(119.0, 1.0, 0.0), (120.0, 1.0, 119.0), (599.0, 60.0, 0.0)])
def test_a_hang_is_ten_usual_steps_and_two_minutes_long_at_least(seconds: float, usual: float, lost: float) -> None:
    assert hang_seconds(seconds, usual) == lost


RUNNING = segment(0.0, steps(0.0, 1.0), steps(1.0, 100.0, 99))


def test_a_running_step_trains_until_it_has_taken_far_too_long() -> None:
    soon = break_down(times(RUNNING, until=101.0, state=RunState.RUNNING))
    late = break_down(times(RUNNING, until=700.0, state=RunState.RUNNING))
    assert spent(soon) == {TimeCause.TRAINING: 101.0}
    assert spent(late) == {TimeCause.TRAINING: 101.0, TimeCause.HANG: 599.0}


def test_an_announced_pause_does_not_hang_until_it_is_over() -> None:
    for until, cause in ((700.0, TimeCause.OTHER), (701.0, TimeCause.HANG)):
        found = break_down(times(RUNNING, until=until, state=RunState.RUNNING, expected_by=700.0))
        assert spent(found) == {TimeCause.TRAINING: 101.0, cause: until - 101.0}


def test_a_run_that_is_held_now_waits_for_a_person() -> None:
    found = break_down(times(RUNNING, until=5000.0, state=RunState.RUNNING, holds=[(101.0, 5000.0)]))
    assert spent(found) == {TimeCause.TRAINING: 101.0, TimeCause.WAITING: 4899.0}


def test_a_run_without_steps_starts_up_or_restarts() -> None:
    new = times(segment(5.0), until=90.0, state=RunState.RUNNING)
    assert spent(break_down(new)) == {TimeCause.STARTUP: 90.0}
    assert spent(break_down(times(until=90.0, state=RunState.RUNNING))) == {TimeCause.STARTUP: 90.0}
    again = times(RUNNING, segment(150.0, cause=TimeCause.RESTART), until=190.0, state=RunState.RUNNING)
    assert spent(break_down(again)) == {TimeCause.TRAINING: 100.0, TimeCause.RESTART: 90.0}


def test_no_time_has_no_goodput() -> None:
    assert break_down(times(until=0.0)).goodput is None


def test_only_the_first_segment_of_a_run_is_its_startup() -> None:
    assert cause_of(SegmentReason.START, is_first=True) is TimeCause.STARTUP
    assert [cause_of(reason) for reason in SegmentReason] == [
        TimeCause.RESTART,
        TimeCause.RESTART,
        TimeCause.SPIKE,
        TimeCause.REWIND,
    ]
    assert cause_of("of a later release") is TimeCause.OTHER


moments = st.floats(-1e4, 1e4)
stretches = st.builds(
    Stretch,
    begin=moments,
    end=moments,
    num_steps=st.integers(1, 100),
    cause=st.sampled_from(TimeCause),
    step_seconds=st.none() | st.floats(0, 1e3),
    checkpoint_seconds=st.floats(0, 1e3),
    evaluation_seconds=st.floats(0, 1e3),
    pause_seconds=st.floats(0, 1e3),
    is_single=st.booleans(),
)
intervals = st.lists(st.tuples(moments, moments), max_size=4).map(merged)
runs = st.builds(
    RunTimes,
    started_at=moments,
    until=moments,
    state=st.sampled_from(RunState),
    segments=st.lists(
        st.builds(
            SegmentTimes, opened_at=moments, cause=st.sampled_from(TimeCause), stretches=st.lists(stretches, max_size=4)
        ),
        max_size=5,
    ),
    holds=intervals,
    decisions=intervals,
    expected_by=st.none() | moments,
)


@given(runs)
def test_every_second_has_exactly_one_cause_whatever_the_clocks_say(run: RunTimes) -> None:
    found = break_down(run)
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert math.isclose(found.total, max(0.0, run.until - run.started_at), abs_tol=1e-6)
    assert found.goodput is None or 0 <= found.goodput <= 1 + 1e-9


@given(st.lists(st.tuples(moments, moments), max_size=6), moments)
def test_merged_intervals_hold_the_same_moments_once(given_intervals: list[tuple[float, float]], at: float) -> None:
    among = sum(first <= at <= last for first, last in merged(given_intervals))
    assert among <= 1
    assert bool(among) == any(first <= at <= last and first < last for first, last in given_intervals)
