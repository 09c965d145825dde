import math
import statistics

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.data.markov import MarkovChain, random_chain
from trainer.data.ngram import NGram
from trainer.estimate import Estimate
from trainer.exposure import exposure_bias, own_continuations
from trainer.scheduled_sampling import Predictor, roll_out

CHAIN = random_chain(2, 16)


def loss_of_the_text_after_own_tokens(source: MarkovChain) -> float:
    """How exposure bias was once measured: the loss of the true second half after a half that was generated."""
    generator = torch.Generator().manual_seed(0)
    first_NT = source.first_tokens(64, generator).expand(-1, 33)
    everywhere_NT = torch.ones_like(first_NT, dtype=torch.bool)
    text_NT = roll_out(source.log_probabilities, first_NT, everywhere_NT, torch.rand(64, 33, generator=generator))
    own_NT = text_NT[:, :-1].clone()
    for t in range(16, 31):
        own_NT[:, t + 1] = source.log_probabilities(own_NT[:, : t + 1])[:, -1].argmax(dim=-1)
    after_own, after_true = (
        F.cross_entropy(source.log_probabilities(inputs_NT)[:, 16:].flatten(0, 1), text_NT[:, 17:].flatten()).item()
        for inputs_NT in (own_NT, text_NT[:, :-1])
    )
    return after_own - after_true


def test_the_source_itself_has_no_exposure_bias_though_a_text_does_not_continue_what_it_generates() -> None:
    assert loss_of_the_text_after_own_tokens(CHAIN) > 2.0
    measured = exposure_bias(CHAIN.log_probabilities, CHAIN, 32, num_sequences=128)
    assert abs(measured.bias.mean) < 1e-6
    assert max(map(abs, measured.true_prefixes_T + measured.own_prefixes_T)) < 1e-6
    assert len(measured.true_prefixes_T) == len(measured.own_prefixes_T) == 32


def test_a_model_that_ignores_its_prefix_is_off_by_what_the_prefix_tells() -> None:
    chain = random_chain(1, 16)
    marginal = torch.from_numpy(chain.stationary).log()
    measured = exposure_bias(lambda inputs_BT: marginal.expand(*inputs_BT.shape, 16), chain, 16)
    information = chain.marginal_entropy() - chain.entropy_rate
    assert measured.true_prefixes.mean == pytest.approx(information, abs=4 * measured.true_prefixes.standard_error)
    assert measured.own_prefixes.mean == pytest.approx(information, abs=4 * measured.own_prefixes.standard_error)
    assert abs(measured.bias.mean) < 4 * measured.bias.standard_error


def wrong_after_zero() -> tuple[MarkovChain, MarkovChain]:
    """A chain, and a model that comes to token 0 more often than the chain does and is wrong only there."""
    true = np.array([[0.1, 0.8, 0.1], [0.05, 0.05, 0.9], [0.05, 0.9, 0.05]])
    model = true.copy()
    model[0] = [0.9, 0.05, 0.05]
    return MarkovChain(true), MarkovChain(model)


def test_exposure_bias_is_that_of_the_states_that_the_model_leads_itself_into() -> None:
    """Compared with the exact one: state probabilities by matrix powers, times the divergence in each state."""
    chain, model = wrong_after_zero()
    p, q = chain.probabilities, model.probabilities
    divergence = (p * np.log(p / q)).sum(axis=1)
    at_T = [
        [float(chain.stationary @ np.linalg.matrix_power(rows, t) @ divergence) for t in range(12)] for rows in (p, q)
    ]
    true, own = map(statistics.fmean, at_T)
    measured = exposure_bias(model.log_probabilities, chain, 12, num_sequences=4000)
    assert own - true > 0.3
    assert measured.true_prefixes.mean == pytest.approx(true, abs=4 * measured.true_prefixes.standard_error)
    assert measured.own_prefixes.mean == pytest.approx(own, abs=4 * measured.own_prefixes.standard_error)
    assert measured.bias.mean == pytest.approx(own - true, abs=4 * measured.bias.standard_error)
    assert measured.own_prefixes_T[0] == measured.true_prefixes_T[0]  # the first token is of the chain in both
    assert measured.own_prefixes_T[-1] > measured.own_prefixes_T[1] > measured.own_prefixes_T[0]


def test_the_standard_error_is_the_spread_of_repeated_measurements() -> None:
    chain, model = wrong_after_zero()
    repeated = [exposure_bias(model.log_probabilities, chain, 8, num_sequences=100, seed=i).bias for i in range(50)]
    spread = statistics.stdev(each.mean for each in repeated)
    assert spread == pytest.approx(statistics.fmean(each.standard_error for each in repeated), rel=0.3)


def test_too_few_values_have_no_standard_error() -> None:
    assert math.isnan(Estimate.of(torch.tensor([])).mean)
    assert math.isnan(Estimate.of(torch.tensor([1.5])).standard_error)
    assert Estimate.of(torch.tensor([1.0, 3.0])) == Estimate(2.0, 1.0)


def sharpened(inputs_BT: Tensor) -> Tensor:
    return 3.0 * CHAIN.log_probabilities(inputs_BT)


def uniform(inputs_BT: Tensor) -> Tensor:
    return torch.zeros(*inputs_BT.shape, 16)


@pytest.mark.parametrize(
    ("model", "lowest", "highest"),
    [(CHAIN.log_probabilities, -4, 4), (uniform, 10, math.inf), (sharpened, -math.inf, -10)],
)
def test_own_continuations_are_as_likely_as_real_ones_for_the_source_itself(
    model: Predictor, lowest: float, highest: float
) -> None:
    """In standard errors. A bland model's are likelier than real ones: the measure says different, not worse."""
    tokens = CHAIN.tokens(33 * 400).astype(np.int64).reshape(400, 33)
    reference = NGram(tokens[:200], order=3, vocab_size=16)
    measured = own_continuations(model, torch.from_numpy(tokens[200:]), reference)
    assert lowest < measured.excess.mean / measured.excess.standard_error < highest
    if model == CHAIN.log_probabilities:
        assert abs(measured.growth.mean) < 4 * measured.growth.standard_error
