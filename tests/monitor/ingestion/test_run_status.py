"""The pulse of a run: maxima by wall time, pace, pauses."""

import math

import numpy as np

from db.models import RunStatus
from db.steps.columns import MetricColumn
from monitor.ingestion import run_status
from monitor.ingestion.run_status import NUM_SLOTS, PEAK_WINDOW, SLOT, News

NOW = 1_800_000_000.0


def new() -> RunStatus:
    return RunStatus(
        run_pk=1, last_step_at=NOW, nonfinite_steps=0, skipped_steps=0, latest_values={}, peaks=[], recent_reports=[]
    )


def news(first: int, loss: list[float | None], *, seconds: float = 0.5, **others: list[float | None]) -> News:
    steps = range(first, first + len(loss))
    columns = {"loss": MetricColumn.of(loss)} | {name: MetricColumn.of(column) for name, column in others.items()}
    return News(list(steps), [NOW + seconds * step for step in steps], columns)


def test_a_spike_of_one_step_stays_in_sight_for_the_window_and_goes_after_it() -> None:
    one = new()
    run_status.beat(one, news(0, [2.0, 9.0, 2.0]), NOW)
    for second in range(1, 61):
        run_status.beat(one, news(2 + second, [2.0]), NOW + second)
    assert run_status.value(one, "loss") == 2.0
    assert run_status.peak(one, "loss", NOW + PEAK_WINDOW) == 9.0
    assert run_status.peak(one, "loss", NOW + PEAK_WINDOW + SLOT) == 2.0


def test_a_maximum_goes_when_the_window_is_over_also_if_nothing_more_comes() -> None:
    one = new()
    run_status.beat(one, news(0, [9.0]), NOW)
    assert run_status.peak(one, "loss", NOW + NUM_SLOTS * SLOT) is None


def test_a_nan_outranks_every_maximum_and_infinity_every_number() -> None:
    one = new()
    run_status.beat(one, news(0, [2.0, math.inf, 3.0]), NOW)
    assert run_status.peak(one, "loss", NOW) == math.inf
    run_status.beat(one, news(3, [math.nan, 4.0]), NOW)
    run_status.beat(one, news(5, [5.0]), NOW)
    assert math.isnan(run_status.peak(one, "loss", NOW) or 0.0)
    assert run_status.value(one, "loss") == 5.0
    assert one.nonfinite_steps == 2


def test_the_newest_value_is_the_last_that_was_reported_nan_included() -> None:
    one = new()
    run_status.beat(one, news(0, [2.0, math.nan], lr=[1e-3, None]), NOW)
    assert math.isnan(run_status.value(one, "loss") or 0.0)
    assert math.isnan(run_status.value(one, "perplexity") or 0.0)
    assert run_status.value(one, "lr") == 1e-3
    run_status.beat(one, news(2, [1000.0]), NOW)
    assert run_status.value(one, "perplexity") == math.inf


def test_a_pause_does_not_count_as_the_time_of_a_step() -> None:
    one = new()
    for step in range(0, 10, 2):
        run_status.beat(one, news(step, [2.0, 2.0]), NOW)
    late = News([10], [NOW + 4.5 + 600.0], {"loss": MetricColumn.of([2.0])})
    run_status.beat(one, late, NOW + 605)
    assert run_status.step_seconds(one) == 0.5


def test_tokens_a_second_go_over_the_last_reports_and_begin_anew_after_a_rollback() -> None:
    one = new()
    run_status.beat(one, news(0, [2.0], tokens=[100.0]), NOW)
    assert run_status.tokens_per_second(one) is None
    run_status.beat(one, news(1, [2.0] * 4, tokens=[200.0, 300.0, 400.0, 500.0]), NOW)
    assert run_status.tokens_per_second(one) == 200.0
    run_status.beat(one, news(1, [2.0], tokens=[200.0]), NOW)
    assert run_status.tokens_per_second(one) is None
    assert one.step == 1


def test_skipped_steps_are_counted_where_the_loop_tells_them() -> None:
    one = new()
    run_status.beat(one, news(0, [2.0, 2.0, 2.0], skipped=[0.0, 1.0, None]), NOW)
    assert one.skipped_steps == 1


def test_clocks_that_stand_or_go_back_give_no_pace_and_no_error() -> None:
    one = new()
    run_status.beat(one, News([0, 1, 2], [NOW, NOW, NOW - 5], {"loss": MetricColumn.of([1.0, 1.0, 1.0])}), NOW)
    assert run_status.step_seconds(one) is None
    assert all(np.isfinite(column[0]) for column in one.recent_reports)
