"""What a run costs."""

import math

import pytest

from dashboard.data.compute import Compute, num_parameters
from dashboard.figures.compute import compute_figure


@pytest.mark.parametrize("recorded", [None, "many", -3, 0, True, float("nan"), float("inf"), [1]])
def test_a_configuration_without_a_usable_number_of_parameters_has_none(recorded: object) -> None:
    assert num_parameters({"num_parameters": recorded}) is None


@pytest.mark.parametrize("tokens", [math.nan, math.inf, 1e308])
def test_tokens_that_are_no_number_have_no_place_on_the_scale(tokens: float) -> None:
    assert compute_figure(Compute(1_000_000, tokens)) is None
    assert compute_figure(Compute(None, 5e6)) is None
