"""What a run's training costs, from what it recorded. Pure.

The number of parameters N is `num_parameters` of the run's configuration (the trainer records it; a loop of one's own
can). Training costs about 6ND floating-point operations for D tokens (Kaplan et al. 2020, arXiv:2001.08361).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHINCHILLA = 20.0
"""Tokens per parameter at which a given compute is best spent (Hoffmann et al. 2022, arXiv:2203.15556), about."""


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A training run that was written about."""

    name: str
    parameters: float
    tokens: float

    @property
    def flops(self) -> float:
        """6ND."""
        return 6 * self.parameters * self.tokens


PUBLISHED = (
    PublishedRun("GPT-3 175B", 175e9, 300e9),  # Brown et al. 2020, arXiv:2005.14165
    PublishedRun("Llama 2 70B", 70e9, 2e12),  # Touvron et al. 2023, arXiv:2307.09288
)


@dataclass(frozen=True, slots=True)
class Compute:
    """Of one run."""

    parameters: int | None
    tokens: float | None
    """Seen on the live line."""

    @property
    def tokens_per_parameter(self) -> float | None:
        return _told(self.tokens / self.parameters) if self.tokens is not None and self.parameters else None

    @property
    def flops(self) -> float | None:
        """6ND."""
        return _told(6.0 * self.parameters * self.tokens) if self.tokens is not None and self.parameters else None


def _told(value: float) -> float | None:
    """A loop may report tokens that are no number: such a count tells nothing."""
    return value if math.isfinite(value) else None


def num_parameters(config: Mapping[str, Any]) -> int | None:
    """None when the configuration does not tell it."""
    told = config.get("num_parameters")
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 < told < 1e18:
        return int(told)
    return None


def flops_per_token(config: Mapping[str, Any]) -> float | None:
    """6N."""
    parameters = num_parameters(config)
    return None if parameters is None else 6.0 * parameters


def union(intervals: Sequence[tuple[float, float]]) -> float:
    """The length that these intervals cover together: what overlaps counts once."""
    covered, end = 0.0, float("-inf")
    for left, right in sorted(intervals):
        covered += max(0.0, right - max(left, end))
        end = max(end, right)
    return covered
