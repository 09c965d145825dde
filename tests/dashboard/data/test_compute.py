"""What a run costs."""

import math

import pytest

from dashboard.data.compute import PUBLISHED, Compute, num_parameters
from dashboard.figures.compute import compute_figure


def test_a_run_stands_beside_published_ones_on_one_scale() -> None:
    figure = compute_figure(Compute(1_000_000, 5e6))
    assert figure is not None
    (points,) = figure.data
    assert points.y[-1] == "this run"
    assert points.x[-1] == pytest.approx(6 * 1e6 * 5e6)
    assert points.x[-2] == pytest.approx(6 * 1e6 * 20e6)  # 20 tokens a parameter


def test_published_runs_cost_what_was_published_of_them() -> None:
    reported = {each.name: each.reported_flops for each in PUBLISHED if each.reported_flops is not None}
    assert set(reported) == {"GPT-3 175B", "Chinchilla 70B", "Llama 3.1 405B", "GPT-4"}
    for each in PUBLISHED:
        assert each.flops == pytest.approx(reported.get(each.name, each.flops), rel=0.03)


def test_an_estimated_run_says_so_in_the_figure() -> None:
    figure = compute_figure(Compute(1_000_000, 5e6))
    assert figure is not None
    (points,) = figure.data
    assert [label for label in points.y if "(estimated)" in label] == [
        f"{each.name} (estimated)" for each in PUBLISHED[::-1] if each.is_estimated
    ]


@pytest.mark.parametrize("recorded", [None, "many", -3, 0, True, float("nan"), float("inf"), [1]])
def test_a_configuration_without_a_usable_number_of_parameters_has_none(recorded: object) -> None:
    assert num_parameters({"num_parameters": recorded}) is None


def test_a_run_without_a_recorded_size_has_no_place_on_the_scale() -> None:
    assert compute_figure(Compute(None, 5e6)) is None
    assert compute_figure(Compute(10, None)) is None


@pytest.mark.parametrize("tokens", [math.nan, math.inf, 1e308])
def test_tokens_that_are_no_number_have_no_place_on_the_scale(tokens: float) -> None:
    assert Compute(1_000_000, tokens).flops is None
    assert compute_figure(Compute(1_000_000, tokens)) is None
