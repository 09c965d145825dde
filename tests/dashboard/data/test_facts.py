"""How far a run is, and what it costs."""

import math
from dataclasses import fields
from typing import Any

import pytest

from dashboard.data.facts import Compute, RunFacts, num_parameters, progress
from dashboard.figures.compute import compute_figure
from db.models import BESIDE, Event, Run, Segment
from db.runs.overview import StepTime
from lossguard.vocabulary.protocol import CHECKPOINT_UNCERTIFIED, NO_HEARTBEAT


def steps(*numbers: int) -> list[StepTime]:
    return [StepTime(step=number, time=2.0 * number) for number in numbers]


def test_time_left_is_steps_left_times_the_pace_of_the_newest_steps() -> None:
    now = progress(Run(total_steps=100), steps(10, 11, 19))
    assert (now.done, now.seconds_per_step, now.fraction, now.seconds_left) == (20, 2.0, 0.2, 160.0)


def test_a_run_that_counts_its_steps_from_1_ends_with_all_of_them_done() -> None:
    assert [progress(Run(total_steps=100), steps(last)).done for last in (98, 99, 100, 101)] == [99, 100, 100, 102]


def test_a_clock_that_went_back_gives_no_pace() -> None:
    back = progress(Run(total_steps=100), [StepTime(step=0, time=9.0), StepTime(step=1, time=8.0)])
    assert (back.seconds_per_step, back.seconds_left) == (None, None)


def test_a_hold_among_the_newest_steps_does_not_lengthen_the_time_left_and_a_save_does() -> None:
    times = [float(step) + (36_000.0 if step > 50 else 0.0) + (10.0 if step > 90 else 0.0) for step in range(101)]
    now = progress(Run(total_steps=1101), [StepTime(step=step, time=time) for step, time in enumerate(times)])
    assert now.seconds_per_step == pytest.approx(109 / 99)


def test_the_parameters_are_found_where_a_framework_records_them() -> None:
    assert num_parameters({"model": {"num_parameters": 7}}) == 7
    assert num_parameters({"model": {"num_parameters": 7}, "num_parameters": 5}) == 5
    assert num_parameters({"model": "gpt"}) is None


def test_what_is_kept_of_a_run_is_read_anew_after_an_mlflow_client_may_have_added_values() -> None:
    nothing: dict[str, Any] = dict.fromkeys((each.name for each in fields(RunFacts)), None) | {"segments": []}

    def stamp(revision: int, capabilities: list[str]) -> tuple[float, ...]:
        run = Run(started_at=1.0, revision=revision, capabilities=capabilities)
        return RunFacts(**nothing | {"run": run}).stamp

    assert stamp(1, [NO_HEARTBEAT]) != stamp(2, [NO_HEARTBEAT])
    assert stamp(1, []) == stamp(2, [])


@pytest.mark.parametrize("recorded", [None, "many", -3, 0, 0.5, True, float("nan"), float("inf"), [1]])
def test_a_configuration_without_a_usable_number_of_parameters_has_none(recorded: object) -> None:
    assert num_parameters({"num_parameters": recorded}) is None


@pytest.mark.parametrize("tokens", [math.nan, math.inf, 1e308])
def test_tokens_that_are_no_number_have_no_place_on_the_scale(tokens: float) -> None:
    assert compute_figure(Compute(1_000_000, tokens)) is None
    assert compute_figure(Compute(None, 5e6)) is None


@pytest.mark.parametrize(("orders", "shown"), [([0], True), ([0, BESIDE], True), ([0, 1], False), ([2, 1], True)])
def test_a_state_that_is_never_restored_is_shown_while_its_segment_leads_the_live_line(
    orders: list[int], shown: bool
) -> None:
    details = {"step": 20, "reason": "model.weight holds NaN"}
    values: dict[str, Any] = dict.fromkeys((each.name for each in fields(RunFacts)), None) | {
        "run": Run(restorable_steps=[0, 10]),
        "segments": [Segment(number=number, live_order=order) for number, order in enumerate(orders)],
        "events": [Event(segment=0, kind=CHECKPOINT_UNCERTIFIED, details=details)],
    }
    assert RunFacts(**values).uncertified == ((20, "model.weight holds NaN") if shown else None)
