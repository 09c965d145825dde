"""The status of a run: maxima by wall time, step rate, pauses."""

import math

import numpy as np

from db.models import RunStatus
from db.steps.step_block import MetricColumn
from monitor.ingestion.columns import StepColumns
from monitor.ingestion.run_state import run_status
from monitor.ingestion.run_state.run_status import NUM_SLOTS, PEAK_WINDOW_SECONDS, SLOT_SECONDS

NOW = 1_800_000_000.0


def new_status() -> RunStatus:
    return RunStatus(
        run_pk=1, last_step_at=NOW, nonfinite_steps=0, skipped_steps=0, latest_values={}, peaks=[], recent_reports=[]
    )


def record(status: RunStatus, new: StepColumns, now: float) -> None:
    for name, value in run_status.with_steps(status, new, now).items():
        setattr(status, name, value)


def columns(first: int, loss: list[float | None], *, seconds: float = 0.5, **others: list[float | None]) -> StepColumns:
    steps = range(first, first + len(loss))
    metrics = {"loss": MetricColumn.of(loss)} | {name: MetricColumn.of(column) for name, column in others.items()}
    return StepColumns(list(steps), [NOW + seconds * step for step in steps], metrics)


def test_a_spike_of_one_step_stays_in_sight_for_the_window_and_goes_after_it() -> None:
    status = new_status()
    record(status, columns(0, [2.0, 9.0, 2.0]), NOW)
    for second in range(1, 61):
        record(status, columns(2 + second, [2.0]), NOW + second)
    assert run_status.value(status, "loss") == 2.0
    assert run_status.peak(status, "loss", NOW + PEAK_WINDOW_SECONDS) == 9.0
    assert run_status.peak(status, "loss", NOW + PEAK_WINDOW_SECONDS + SLOT_SECONDS) == 2.0


def test_a_maximum_goes_when_the_window_is_over_also_if_nothing_more_comes() -> None:
    status = new_status()
    record(status, columns(0, [9.0]), NOW)
    assert run_status.peak(status, "loss", NOW + NUM_SLOTS * SLOT_SECONDS) is None


def test_a_nan_outranks_every_maximum_and_infinity_every_number() -> None:
    status = new_status()
    record(status, columns(0, [2.0, math.inf, 3.0]), NOW)
    assert run_status.peak(status, "loss", NOW) == math.inf
    record(status, columns(3, [math.nan, 4.0]), NOW)
    record(status, columns(5, [5.0]), NOW)
    assert math.isnan(run_status.peak(status, "loss", NOW) or 0.0)
    assert run_status.value(status, "loss") == 5.0
    assert status.nonfinite_steps == 2


def test_the_newest_value_is_the_last_that_was_reported_nan_included() -> None:
    status = new_status()
    record(status, columns(0, [2.0, math.nan], lr=[1e-3, None]), NOW)
    assert math.isnan(run_status.value(status, "loss") or 0.0)
    assert math.isnan(run_status.value(status, "perplexity") or 0.0)
    assert run_status.value(status, "lr") == 1e-3
    record(status, columns(2, [1000.0]), NOW)
    assert run_status.value(status, "perplexity") == math.inf


def test_a_pause_does_not_count_as_the_time_of_a_step() -> None:
    status = new_status()
    for step in range(0, 10, 2):
        record(status, columns(step, [2.0, 2.0]), NOW)
    late = StepColumns([10], [NOW + 4.5 + 600.0], {"loss": MetricColumn.of([2.0])})
    record(status, late, NOW + 605)
    assert run_status.step_seconds(status) == 0.5


def test_tokens_a_second_cover_the_last_reports_and_start_over_after_a_rollback() -> None:
    status = new_status()
    record(status, columns(0, [2.0], tokens=[100.0]), NOW)
    assert run_status.tokens_per_second(status) is None
    record(status, columns(1, [2.0] * 4, tokens=[200.0, 300.0, 400.0, 500.0]), NOW)
    assert run_status.tokens_per_second(status) == 200.0
    record(status, columns(1, [2.0], tokens=[200.0]), NOW)
    assert run_status.tokens_per_second(status) is None
    assert status.step == 1


def test_skipped_steps_are_counted_if_the_loop_logs_them() -> None:
    status = new_status()
    record(status, columns(0, [2.0, 2.0, 2.0], skipped=[0.0, 1.0, None]), NOW)
    assert status.skipped_steps == 1


def test_clocks_that_stand_or_go_back_give_no_rate_and_no_error() -> None:
    status = new_status()
    backwards = StepColumns([0, 1, 2], [NOW, NOW, NOW - 5], {"loss": MetricColumn.of([1.0, 1.0, 1.0])})
    record(status, backwards, NOW)
    assert run_status.step_seconds(status) is None
    assert all(np.isfinite(column[0]) for column in status.recent_reports)
