"""What a run costs."""

import math

import pytest

from dashboard.data.compute import PUBLISHED, Compute, num_parameters, union_length
from dashboard.figures.compute import compute_figure


def test_a_run_stands_beside_published_ones_on_one_scale() -> None:
    figure = compute_figure(Compute(1_000_000, 5e6))
    assert figure is not None
    (points,) = figure.data
    assert points.y[-1] == "this run"
    assert points.x[-1] == pytest.approx(6 * 1e6 * 5e6)
    assert points.x[-2] == pytest.approx(6 * 1e6 * 20e6)  # 20 tokens a parameter


def test_published_runs_cost_what_was_published_of_them() -> None:
    gpt3, llama2 = PUBLISHED
    assert gpt3.flops == pytest.approx(3.14e23, rel=0.02)  # Brown et al. 2020, table D.1
    assert llama2.flops == pytest.approx(1e24, rel=0.2)


@pytest.mark.parametrize("recorded", [None, "many", -3, 0, True, float("nan"), float("inf"), [1]])
def test_a_configuration_without_a_usable_number_of_parameters_has_none(recorded: object) -> None:
    assert num_parameters({"num_parameters": recorded}) is None


def test_a_run_without_a_recorded_size_has_no_place_on_the_scale() -> None:
    assert compute_figure(Compute(None, 5e6)) is None
    assert compute_figure(Compute(10, None)) is None


def test_time_that_two_rollbacks_share_is_lost_once() -> None:
    assert union_length([(10, 20), (15, 30), (40, 41)]) == 21
    assert union_length([]) == 0


@pytest.mark.parametrize("tokens", [math.nan, math.inf, 1e308])
def test_tokens_that_are_no_number_have_no_place_on_the_scale(tokens: float) -> None:
    assert Compute(1_000_000, tokens).flops is None
    assert compute_figure(Compute(1_000_000, tokens)) is None
