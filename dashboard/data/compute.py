"""The training compute of a run, from its parameters and tokens. Pure.

The number of parameters N is `num_parameters` of the run's configuration (the trainer records it; any loop can).
Training takes about 6ND floating-point operations for D tokens (Kaplan et al. 2020, arXiv:2001.08361).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHINCHILLA = 20.0
"""Compute-optimal tokens per parameter, approximately (Hoffmann et al. 2022, arXiv:2203.15556)."""


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A published training run."""

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
        return _finite(self.tokens / self.parameters) if self.tokens is not None and self.parameters else None

    @property
    def flops(self) -> float | None:
        """6ND."""
        return _finite(6.0 * self.parameters * self.tokens) if self.tokens is not None and self.parameters else None


def _finite(value: float) -> float | None:
    """None for NaN and infinity: a loop may report such a token count."""
    return value if math.isfinite(value) else None


def num_parameters(config: Mapping[str, Any]) -> int | None:
    """None when the configuration does not have it."""
    value = config.get("num_parameters")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e18:
        return int(value)
    return None


def flops_per_token(config: Mapping[str, Any]) -> float | None:
    """6N."""
    parameters = num_parameters(config)
    return None if parameters is None else 6.0 * parameters


def union_length(intervals: Sequence[tuple[float, float]]) -> float:
    """Total length of these intervals; overlaps count once."""
    covered, end = 0.0, float("-inf")
    for left, right in sorted(intervals):
        covered += max(0.0, right - max(left, end))
        end = max(end, right)
    return covered
