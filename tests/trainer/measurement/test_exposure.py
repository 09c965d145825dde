import statistics

import numpy as np
import pytest
import torch

from trainer.data.markov import MarkovChain, random_chain
from trainer.measurement.exposure import exposure_bias

CHAIN = random_chain(2, 16)


def test_the_source_itself_has_no_exposure_bias() -> None:
    measured = exposure_bias(CHAIN.log_probabilities, CHAIN, 32, num_sequences=128)
    assert abs(measured.bias.mean) < 1e-6
    assert max(map(abs, measured.true_prefixes_T + measured.own_prefixes_T)) < 1e-6
    assert len(measured.true_prefixes_T) == len(measured.own_prefixes_T) == 32


def test_a_model_that_ignores_its_prefix_is_off_by_what_the_prefix_tells() -> None:
    chain = random_chain(1, 16)
    marginal = torch.from_numpy(chain.stationary).log()
    measured = exposure_bias(lambda inputs_BT: marginal.expand(*inputs_BT.shape, 16), chain, 16)
    information = chain.marginal_entropy() - chain.loss_floor(16)
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
