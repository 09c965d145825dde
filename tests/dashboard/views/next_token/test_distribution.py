"""A distribution at a temperature: it changes sampling and never the loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboard.views.next_token.distribution import Precision, at_temperature, surprisal
from lossguard.vocabulary.wire import Probe
from tests.dashboard.views.next_token.probes import probe


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
def test_sampling_follows_the_softmax_of_the_logits_over_the_temperature(temperature: float) -> None:
    now = at_temperature(probe(0.6, 0.3, 0.1, target=1), temperature)
    assert now is not None
    weights = np.array([0.6, 0.3, 0.1]) ** (1 / temperature)
    assert now.named == pytest.approx(weights / weights.sum())
    assert now.target == pytest.approx(now.named[1])


def test_temperature_one_is_the_models_own_distribution_and_that_of_the_surprisal() -> None:
    probed = probe(0.5, 0.2, target=1, rest=0.3, rest_count=3)
    now = at_temperature(probed, 1.0)
    assert now is not None
    assert [*now.named, now.rest] == pytest.approx([0.5, 0.2, 0.3])
    assert now.entropy == pytest.approx(-(0.5 * math.log(0.5) + 0.2 * math.log(0.2) + 3 * 0.1 * math.log(0.1)))
    assert surprisal(probed) == pytest.approx(-math.log(0.2))


def test_an_output_with_nan_is_not_a_distribution_and_its_surprisal_is_nan() -> None:
    broken = probe(0.5, -1.0, target=1)
    assert at_temperature(broken, 1.0) is None
    assert math.isnan(surprisal(broken) or 0.0)


@pytest.mark.parametrize("log_probability", [5.0, 1e308, math.nan])
def test_a_log_probability_above_zero_is_no_distribution(log_probability: float) -> None:
    wrong = replace(probe(0.5, 0.5), log_probabilities=(log_probability, -1.0))
    assert at_temperature(wrong, 1.0) is None


def zipf(exponent: float, size: int) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = 1.0 / np.arange(1.0, size + 1) ** exponent
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def named(p: NDArray[np.float64], num_named: int, *, entropy: float | None = None) -> Probe:
    """A probe that names the likeliest tokens, as next_token does."""
    return Probe(
        prompt="p",
        tokens=tuple(map(str, range(num_named))),
        log_probabilities=tuple(np.log(p[:num_named]).tolist()),
        rest_count=len(p) - num_named,
        rest_log_probability=math.log(p[num_named:].sum()),
        entropy=entropy,
    )


def choices(p: NDArray[np.float64], temperature: float = 1.0) -> float:
    """exp(entropy) by the definition."""
    q = p ** (1 / temperature)
    q = q / q.sum()
    return math.exp(-(q * np.log(q)).sum())


@pytest.mark.parametrize(("exponent", "size"), [(1.3, 50257), (1.0, 1000), (2.0, 300), (0.0, 400)])
def test_of_some_named_tokens_the_true_effective_choices_lie_between_the_bounds(exponent: float, size: int) -> None:
    p = zipf(exponent, size)
    now = at_temperature(named(p, 64), 1.0)
    assert now is not None
    assert now.precision is Precision.AT_MOST
    assert now.fewest_choices <= choices(p) * (1 + 1e-9)
    assert choices(p) <= now.effective_choices * (1 + 1e-9)


def test_a_recorded_entropy_is_exact_at_temperature_one_only() -> None:
    p = zipf(1.3, 5000)
    probed = named(p, 64, entropy=math.log(choices(p)))
    plain, warm = at_temperature(probed, 1.0), at_temperature(probed, 2.0)
    assert plain is not None
    assert warm is not None
    assert (plain.precision, warm.precision) == (Precision.EXACT, Precision.AT_MOST)
    assert plain.effective_choices == pytest.approx(choices(p))
