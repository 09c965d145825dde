"""A next-token distribution at a temperature. Pure.

Sampling at temperature T uses probabilities proportional to p^(1/T). The loss has no temperature: it is -log p of the
true token at T = 1.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dashboard.axes import Floats
from lossguard.vocabulary.wire import Probe

ROUNDING = 1e-3
"""Nats."""
REASON = "a log probability is NaN or above 0"
"""Reason why a model's output is not a distribution."""


class Precision(StrEnum):
    """Precision of an entropy. The value stands before its number."""

    EXACT = ""
    # From temperature 1 on, both the entropy of the tokens without a name and their share are largest if they are
    # equally likely. Below 1 their share is smallest then, so that the entropy may be larger or smaller.
    AT_MOST = "at most"
    ABOUT = "about"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Probabilities float64[K] of the tokens that a probe names, in its order, and the sum for all other tokens."""

    named: Floats
    rest: float
    rest_count: int
    target: float | None
    """Probability of the true token; None if it is not known."""
    precision: Precision
    """Precision of the entropy."""
    exact_entropy: float | None = None
    """Entropy in nats; None if it was not recorded, or not at this temperature."""

    @property
    def entropy(self) -> float:
        """Entropy in nats. If it was not recorded, the tokens that are not named are taken as equally likely."""
        if self.exact_entropy is not None:
            return self.exact_entropy
        each = self.rest / self.rest_count if self.rest_count else 0.0
        return float(_information(self.named).sum() + self.rest_count * _information(np.array([each]))[0])

    @property
    def effective_choices(self) -> float:
        """exp(entropy): the number of equally likely tokens with the same entropy."""
        return math.exp(self.entropy)

    @property
    def fewest_choices(self) -> float:
        """A lower bound of exp(entropy) where it is not exact, at temperature 1.

        No token without a name is likelier than the last one with a name, so the rest is concentrated most, and the
        entropy smallest, when as many tokens as possible have that probability and one has what remains.
        """
        most = float(self.named[-1])
        num_full = int(min(self.rest_count, self.rest / most)) if most > 0 else 0
        full, remainder = _information(np.array([most, max(0.0, self.rest - num_full * most)]))
        return math.exp(_information(self.named).sum() + num_full * full + remainder)


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
    exact = recorded_entropy(probe) if temperature == 1.0 else None
    precision = Precision.AT_MOST if temperature >= 1.0 else Precision.ABOUT
    if exact is not None or not probe.rest_count:
        precision = Precision.EXACT
    return Distribution(weights / total, others / total, probe.rest_count, true, precision, exact)


def has_exact_entropy(probe: Probe) -> bool:
    """True if the entropy at temperature 1 is known, and not only a bound."""
    return not probe.rest_count or recorded_entropy(probe) is not None


def recorded_entropy(probe: Probe) -> float | None:
    """Return the entropy in nats at temperature 1; None if the probe has none, or one that is not finite."""
    return probe.entropy if probe.entropy is not None and math.isfinite(probe.entropy) else None


def is_log_probability(value: float) -> bool:
    """False if NaN, or above 0 by more than a sum of probabilities in single precision may be off."""
    return value <= ROUNDING


def surprisal(probe: Probe) -> float | None:
    """-log P of the true token in nats, as in the loss; it may be NaN or infinite."""
    return None if probe.target_log_probability is None else -probe.target_log_probability


def _information(p: Floats) -> Floats:
    return -p * np.log(np.where(p > 0, p, 1.0))
