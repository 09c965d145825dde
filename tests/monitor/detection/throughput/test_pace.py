"""A slowdown is judged by the run's own past, and by no single slow step."""

import json
from typing import Any

import numpy as np
import pytest

from monitor.detection.rows import Rows
from monitor.detection.throughput.pace import ADOPT_TIMINGS, Change, Finding, Pace, SlowdownCause
from tests.monitor.detection.throughput.runs import durations, timed, with_slow_steps


def findings(rows: Rows, pace: Pace | None = None) -> list[Finding]:
    return [finding for _, finding in (pace or Pace()).observe(rows)]


def changes(rows: Rows) -> list[Change]:
    return [finding.change for finding in findings(rows)]


@pytest.mark.parametrize("seconds", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_a_run_with_checkpoints_and_evaluations_is_not_slow(seconds: float, noise: float) -> None:
    steps = int(40_000 * 0.02 / seconds) + 4000
    assert changes(timed(with_slow_steps(durations(steps, seconds=seconds, noise=noise)))) == []


def test_steps_that_take_twice_as_long_are_a_slowdown_with_its_onset_until_they_are_fast_again() -> None:
    seconds = with_slow_steps(durations(3000))
    seconds[1000:2000] *= 2.2
    began, ended = findings(timed(seconds))
    assert (began.change, began.cause, ended.change) == (Change.BEGAN, SlowdownCause.SUDDEN, Change.RECOVERED)
    assert 970 <= began.onset_step <= 1030
    assert began.timing.last_step <= 1100
    assert began.value / began.usual == pytest.approx(2.2, rel=0.05)
    assert 2000 < ended.timing.last_step <= 2100


def test_a_state_with_seconds_that_nobody_can_have_waited_can_be_stored() -> None:
    pace = Pace()
    findings(timed(durations(40), waited=np.full(40, 1e308)), pace)
    json.dumps(pace.to_dict(), allow_nan=False)


def test_one_slow_step_however_slow_is_none() -> None:
    seconds = durations(2000)
    seconds[1000] = 5000.0
    assert changes(timed(seconds)) == []


def test_a_slow_fall_is_found_against_the_fastest_level_that_the_run_has_kept_up() -> None:
    seconds = durations(4000)
    seconds[1000:] *= np.linspace(1.0, 1.6, 3000)
    began = findings(timed(seconds))[0]
    assert (began.change, began.cause) == (Change.BEGAN, SlowdownCause.GRADUAL)
    assert 1.2 < began.value / began.usual < 1.4


def test_every_fourth_step_that_waits_is_a_slowdown_though_most_steps_are_as_fast_as_ever() -> None:
    seconds = durations(2000)
    seconds[1000::4] *= 10
    assert changes(timed(seconds))[0] is Change.BEGAN


def test_a_run_that_counts_tokens_is_judged_by_them_so_that_a_larger_batch_is_not_slow() -> None:
    seconds, per_step = durations(2000), np.full(2000, 1000.0)
    seconds[1000:], per_step[1000:] = 2 * seconds[1000:], 2 * per_step[1000:]
    assert changes(timed(seconds, tokens=np.cumsum(per_step).tolist())) == []
    assert changes(timed(seconds)) == [Change.BEGAN]
    assert changes(timed(seconds, tokens=np.arange(2000.0).tolist())) == [Change.BEGAN]


@pytest.mark.parametrize("stride", [10, 50])
def test_a_sampled_run_is_judged_like_any_other(stride: int) -> None:
    seconds = with_slow_steps(durations(40_000))
    assert changes(timed(seconds, stride=stride)) == []
    seconds[20_000:] *= 3
    assert changes(timed(seconds, stride=stride))[0] is Change.BEGAN


def test_times_in_whole_seconds_are_no_slowdown() -> None:
    rows = timed(durations(5000, seconds=0.3))
    assert rows.times is not None
    assert changes(Rows(rows.steps, rows.metrics, rows.present, np.floor(rows.times))) == []


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_loop_that_begins_to_wait_for_data_is_a_slowdown(share: float) -> None:
    seconds = durations(2000)
    waited = seconds * np.where(np.arange(2000) < 1000, 0.02, share)
    began = findings(timed(seconds, waited=waited))[0]
    assert (began.change, began.cause) == (Change.BEGAN, SlowdownCause.WAITING)
    assert 970 <= began.onset_step <= 1030
    assert changes(timed(seconds, waited=0.05 * seconds)) == []


def test_a_loop_that_waits_for_data_from_its_first_step_on_is_slow_as_well() -> None:
    seconds = durations(1000)
    assert changes(timed(seconds, waited=0.6 * seconds)) == [Change.BEGAN]


def test_a_declared_change_begins_a_new_usual_level_and_ends_a_slowdown() -> None:
    seconds = durations(3000)
    seconds[1000:] *= 3
    pace = Pace()
    pace.declare(1000)
    assert findings(timed(seconds), pace) == []
    pace = Pace()
    pace.declare(2000)
    found = [each.change for each in findings(timed(seconds), pace)]
    assert [each for each in found if each is not Change.GREW] == [Change.BEGAN, Change.DECLARED]


def test_a_speed_that_lasts_is_adopted_and_no_alarm_any_more() -> None:
    seconds = durations(1000 + 16 * (ADOPT_TIMINGS + 200))
    seconds[1000:] *= 2.5
    assert changes(timed(seconds)) == [Change.BEGAN, Change.ADOPTED]


def test_a_speed_that_comes_and_goes_is_reported_now_and_then_only() -> None:
    seconds = durations(12_000)
    seconds[(np.arange(12_000) // 80) % 2 == 1] *= 2.5
    assert changes(timed(seconds)).count(Change.BEGAN) <= 12_000 / 16 / 16


@pytest.mark.parametrize("cut", [1, 7, 64, 1000])
def test_findings_do_not_depend_on_how_rows_are_grouped_or_where_the_state_is_stored(cut: int) -> None:
    seconds = with_slow_steps(durations(2500))
    seconds[1000:1800] *= 2.5
    rows = timed(seconds, tokens=np.arange(2500.0).tolist(), waited=0.1 * seconds)
    pace, found = Pace(), []
    for part in rows.split(cut):
        pace = Pace.from_dict(pace.to_dict())
        found += [finding for _, finding in pace.observe(part)]
    assert found == findings(rows)
    assert [each.change for each in found] == [Change.BEGAN, Change.RECOVERED]


def test_what_lies_between_two_segments_is_no_step_and_the_first_steps_of_a_process_do_not_count() -> None:
    pace = Pace()
    assert findings(timed(durations(500)), pace) == []
    pace.begin_segment(is_new_process=True)
    again = durations(500)
    again[:16] *= 30  # compiles
    assert findings(timed(again), pace) == []


@pytest.mark.parametrize("values", [{}, {"times": None}])
def test_rows_without_times_or_none_at_all_say_nothing(values: dict[str, Any]) -> None:
    assert findings(Rows.of([1, 2, 3], loss=[3.0, 3.0, 3.0])) == []
    assert findings(timed(durations(0))) == []
