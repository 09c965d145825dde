"""A distribution at a temperature: it changes sampling and never the loss."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dashboard.views.next_token.distribution import at_temperature, surprisal
from tests.dashboard.views.next_token.probes import probe


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
def test_sampling_follows_the_softmax_of_the_logits_over_the_temperature(temperature: float) -> None:
    now = at_temperature(probe(0.6, 0.3, 0.1, target=1), temperature)
    assert now is not None
    weights = np.array([0.6, 0.3, 0.1]) ** (1 / temperature)
    assert now.named == pytest.approx(weights / weights.sum())
    assert now.target == pytest.approx(now.named[1])


def test_effective_choices_are_the_number_of_equally_likely_tokens() -> None:
    now = at_temperature(probe(0.25, 0.25, 0.25, 0.25), 2.0)
    assert now is not None
    assert now.effective_choices == pytest.approx(4.0)


def test_temperature_one_is_the_models_own_distribution_and_that_of_the_surprisal() -> None:
    probed = probe(0.5, 0.2, target=1, rest=0.3, rest_count=3)
    now = at_temperature(probed, 1.0)
    assert now is not None
    assert [*now.named, now.rest] == pytest.approx([0.5, 0.2, 0.3])
    assert now.entropy == pytest.approx(-(0.5 * math.log(0.5) + 0.2 * math.log(0.2) + 3 * 0.1 * math.log(0.1)))
    assert surprisal(probed) == pytest.approx(-math.log(0.2))


def test_an_impossible_token_stays_impossible_at_every_temperature() -> None:
    now = at_temperature(probe(1.0, 0.0, target=1), 3.0)
    assert now is not None
    assert now.named.tolist() == [1.0, 0.0]
    assert now.entropy == 0.0


def test_an_output_with_nan_is_not_a_distribution_and_its_surprisal_is_nan() -> None:
    broken = probe(0.5, -1.0, target=1)
    assert at_temperature(broken, 1.0) is None
    assert math.isnan(surprisal(broken) or 0.0)


@pytest.mark.parametrize("log_probability", [5.0, 1e308, math.nan])
def test_a_log_probability_above_zero_is_no_distribution(log_probability: float) -> None:
    wrong = replace(probe(0.5, 0.5), log_probabilities=(log_probability, -1.0))
    assert at_temperature(wrong, 1.0) is None
