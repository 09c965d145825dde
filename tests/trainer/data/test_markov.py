import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.small import small_recipe
from trainer.config import DataConfig, ModelConfig
from trainer.data.batches import open_batches
from trainer.data.markov import open_chain, random_chain
from trainer.errors import UsageError


def test_the_loss_floor_is_the_entropy_rate_that_linear_algebra_gives() -> None:
    chain = random_chain(1, 5)
    values, vectors = np.linalg.eig(chain.probabilities.T)
    stationary = vectors[:, np.argmax(values.real)].real
    stationary /= stationary.sum()
    rows = [-sum(p * math.log(p) for p in row) for row in chain.probabilities]
    assert chain.loss_floor(7) == pytest.approx(float(stationary @ rows), rel=1e-9)
    assert chain.marginal_entropy() == pytest.approx(-sum(p * math.log(p) for p in stationary), rel=1e-9)


def test_the_probabilities_of_every_position_are_those_of_all_sequences_added_up() -> None:
    """Also at the first position of a chain of order 2, where one token is known and the one before it is not."""
    chain = random_chain(2, 3)
    joint = {  # of five tokens
        tokens: chain.stationary[tokens[:2]] * math.prod(chain.probabilities[tokens[i : i + 3]] for i in range(3))
        for tokens in product(range(3), repeat=5)
    }

    def of_prefix(*prefix: int) -> float:
        return sum(float(p) for tokens, p in joint.items() if tokens[: len(prefix)] == prefix)

    assert of_prefix() == pytest.approx(1.0)
    log_BTV = chain.log_probabilities(torch.tensor([[2, 0, 1, 1]]))
    for t in range(4):
        prefix = (2, 0, 1, 1)[: t + 1]
        expected = [of_prefix(*prefix, token) / of_prefix(*prefix) for token in range(3)]
        assert log_BTV[0, t].exp().tolist() == pytest.approx(expected, rel=1e-5)
    entropies = [
        -of_prefix(*prefix, token) * math.log(of_prefix(*prefix, token) / of_prefix(*prefix))
        for known in (1, 2, 3)
        for *prefix, token in product(range(3), repeat=known + 1)
    ]
    assert chain.loss_floor(3) == pytest.approx(sum(entropies) / 3)


@pytest.mark.parametrize(
    "path", ["markov:", "markov:2", "markov:0,16", "markov:1,1", "markov:2,16,", "markov:9,99", "markov:999999999,3"]
)
def test_a_chain_that_cannot_be_is_refused_with_one_that_can(path: str) -> None:
    with pytest.raises(UsageError, match=r"such as markov:2,16"):
        open_chain(path)


def test_a_recipe_trains_on_a_chain_and_each_batch_is_the_same_whenever_it_is_read(tmp_path: Path) -> None:
    data = DataConfig(path="markov:1,16", batch_size=4, tokenizer="markov")
    recipe = small_recipe(tmp_path, data=data, model=ModelConfig(heads=1, width=16, context=16, vocab_size=16))
    (train, held_out), (again, _) = open_batches(recipe), open_batches(recipe)
    assert torch.equal(train[7].inputs_BT, again[7].inputs_BT)
    assert torch.equal(train[7].targets_BT[:, :-1], train[7].inputs_BT[:, 1:])
    assert held_out is not None
    assert train.tokenizer.name == "markov"
