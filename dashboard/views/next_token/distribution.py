"""A next-token distribution at a temperature. Pure.

Sampling at temperature T uses probabilities proportional to p^(1/T). The loss has no temperature: it is -log p of the
true token at T = 1.
"""

import math
from dataclasses import dataclass

import numpy as np

from dashboard.figures.axis import Floats
from lossguard.probe import Probe

ROUNDING = 1e-3
"""Nats."""
REASON = "a log probability is NaN or above 0"
"""Why a model's output is not a distribution."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Probabilities float64[K] of the tokens that a probe names, in its order, and the sum for all other tokens."""

    named: Floats
    rest: float
    rest_count: int
    target: float | None
    """Of the true token; None if it is not known."""

    @property
    def entropy(self) -> float:
        """In nats. The tokens that are not named are assumed to be equally likely: only their sum is known."""
        each = self.rest / self.rest_count if self.rest_count else 0.0
        return float(_information(self.named).sum() + self.rest_count * _information(np.array([each]))[0])

    @property
    def effective_choices(self) -> float:
        """exp(entropy): the number of equally likely tokens with the same entropy."""
        return math.exp(self.entropy)


def at_temperature(probe: Probe, temperature: float) -> Distribution | None:
    """The probe's distribution at a temperature above 0; None if the model's output is not a distribution.

    That is so where a log probability is NaN or above 0.
    """
    logs = np.array(probe.log_probabilities, dtype=np.float64)
    rest = -math.inf if probe.rest_log_probability is None else probe.rest_log_probability
    target = -math.inf if probe.target_log_probability is None else probe.target_log_probability
    if not all(map(is_log_probability, (*logs, rest, target))):
        return None
    each = rest - math.log(probe.rest_count) if probe.rest_count else -math.inf
    top = max(logs.max(), each)
    if top == -math.inf:
        return None
    weights = np.exp((logs - top) / temperature)
    others = probe.rest_count * math.exp((each - top) / temperature)
    total = float(weights.sum()) + others
    true = None if probe.target is None else math.exp((target - top) / temperature) / total
    return Distribution(weights / total, others / total, probe.rest_count, true)


def is_log_probability(value: float) -> bool:
    """Not if NaN, and not above 0 by more than a sum of probabilities in single precision may be off."""
    return value <= ROUNDING


def surprisal(probe: Probe) -> float | None:
    """-log P of the true token in nats, as in the loss; it may be NaN or infinite."""
    return None if probe.target_log_probability is None else -probe.target_log_probability


def _information(p: Floats) -> Floats:
    return -p * np.log(np.where(p > 0, p, 1.0))
