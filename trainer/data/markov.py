"""A Markov chain: its probabilities are known, so the loss has a known floor, and a model a known distance from it.

--data markov:ORDER,VOCABULARY[,SEED]    for example markov:2,16

Shapes: B sequences, T positions, V vocabulary; k = ORDER.
"""

import re
from bisect import bisect_right
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.errors import UsageError

PATH = re.compile(r"markov:(\d{1,2}),(\d{1,7})(?:,(\d{1,18}))?")  # few digits: a huge power would take for ever
CONCENTRATION = 0.1
"""Concentration of the Dirichlet distribution of each row: after any k tokens, few others are likely."""
UNIFORM_SHARE = 0.01
"""Share of a uniform distribution in each row: every token can follow every other, so there is one stationary state."""
NUM_TOKENS = 2**20
"""Length of the stream that is trained on, with its held-out part."""
MAX_PROBABILITIES = 2**20
"""V^(k + 1) at most; they are held in memory."""
STATIONARY_TOLERANCE = 1e-15
MAX_ITERATIONS = 10_000


class MarkovChain:
    """The chain with these `probabilities` of the next token after k others: shape (V,) * (k + 1), rows add to 1."""

    def __init__(self, probabilities: NDArray[np.float64], seed: int = 0) -> None:
        self.probabilities = probabilities
        self.order = probabilities.ndim - 1
        self.vocab_size = probabilities.shape[0]
        self.seed = seed
        self.stationary = _stationary(probabilities)
        """Probability of k tokens in a row: shape (V,) * k."""
        joints = [self.stationary[..., None] * probabilities]
        while joints[0].ndim > 2:
            joints.insert(0, joints[0].sum(axis=0))  # probability of 2, 3, .., k + 1 tokens in a row
        self._marginal = joints[0].sum(axis=-1)
        conditionals = [joint / joint.sum(axis=-1, keepdims=True) for joint in joints]
        self._log_tables = [torch.from_numpy(np.log(each)).float() for each in conditionals]
        pairs = zip(joints, conditionals, strict=True)
        self._entropies = [float(-(joint * np.log(conditional)).sum()) for joint, conditional in pairs]
        """Entropy of the next token when 1, 2, .., k tokens before it are known."""

    def loss_floor(self, context: int) -> float:
        """Entropy of the next token, given all before it, in nats: the loss that no model can go below on windows of
        `context` inputs, at whose first k - 1 positions less than k tokens are known."""
        return sum(self._entropies[min(t, self.order - 1)] for t in range(context)) / context

    def marginal_entropy(self) -> float:
        """Entropy of a token when nothing before it is known, in nats."""
        return float(-(self._marginal * np.log(self._marginal)).sum())

    def log_probabilities(self, inputs_BT: Tensor) -> Tensor:
        """Log-probability of each next token, given the inputs up to its position: (B, T, V)."""
        T, k = inputs_BT.shape[1], self.order
        num_rest = max(0, T - k + 1)
        early = [self._log_tables[t].to(inputs_BT.device)[tuple(inputs_BT[:, : t + 1].T)] for t in range(min(k - 1, T))]
        rest = self._log_tables[-1].to(inputs_BT.device)[tuple(inputs_BT[:, i : i + num_rest] for i in range(k))]
        return torch.cat([*(each.unsqueeze(1) for each in early), rest], dim=1)

    def first_tokens(self, num: int, generator: torch.Generator) -> Tensor:
        """First tokens of `num` sequences: (B, 1)."""
        marginal = torch.from_numpy(self._marginal)
        return torch.multinomial(marginal, num, replacement=True, generator=generator).unsqueeze(1)

    def tokens(self, length: int) -> NDArray[np.uint16]:
        """One sequence that begins in the stationary state."""
        rng = np.random.default_rng(self.seed)
        rows = self.probabilities.reshape(-1, self.vocab_size).cumsum(axis=-1)
        rows[:, -1] = 1.0
        cumulative = rows.tolist()
        context = int(rng.choice(self.stationary.size, p=self.stationary.ravel()))
        tokens = np.empty(length, dtype=np.uint16)
        num_contexts, V = self.stationary.size, self.vocab_size
        for t, uniform in enumerate(rng.random(length).tolist()):
            tokens[t] = token = bisect_right(cumulative[context], uniform)
            context = (context * V + token) % num_contexts
        return tokens


@cache
def open_chain(path: str) -> MarkovChain | None:
    """The chain that `markov:ORDER,VOCABULARY[,SEED]` names; None for any other path. Raises UsageError."""
    if not path.startswith("markov:"):
        return None
    match = PATH.fullmatch(path)
    order, vocab_size, seed = (int(number or 0) for number in match.groups()) if match else (0, 0, 0)
    if order < 1 or vocab_size < 2 or vocab_size ** (order + 1) > MAX_PROBABILITIES:
        raise UsageError(
            f"The data {path!r} cannot be used: a Markov chain is markov:ORDER,VOCABULARY[,SEED], such as markov:2,16, "
            "and has at most 2^20 probabilities (VOCABULARY to the power of ORDER + 1)."
        )
    return random_chain(order, vocab_size, seed)


def random_chain(order: int, vocab_size: int, seed: int = 0) -> MarkovChain:
    """A chain whose rows are drawn from a Dirichlet distribution, and mixed with a little of the uniform one."""
    rng = np.random.default_rng([seed, order, vocab_size])
    rows = rng.dirichlet(np.full(vocab_size, CONCENTRATION), size=(vocab_size,) * order)
    return MarkovChain((1.0 - UNIFORM_SHARE) * rows + UNIFORM_SHARE / vocab_size, seed)


@cache
def stream(chain: MarkovChain) -> NDArray[np.uint16]:
    """The tokens to train on and to hold out: a function of the chain and its seed, and of nothing else."""
    return chain.tokens(NUM_TOKENS)


def _stationary(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution of k tokens in a row that one more step leaves as it is, by power iteration."""
    order, vocab_size = probabilities.ndim - 1, probabilities.shape[0]
    state = np.full((vocab_size,) * order, float(vocab_size) ** -order)
    for _ in range(MAX_ITERATIONS):
        last, state = state, (state[..., None] * probabilities).sum(axis=0)
        if np.abs(state - last).max() < STATIONARY_TOLERANCE:
            break
    return state
