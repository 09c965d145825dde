"""The training compute of a run, from its parameters and tokens. Pure.

The number of parameters N is `num_parameters` of the run's configuration (the trainer records it; any loop can).
Training takes about 6ND floating-point operations for D tokens (Kaplan et al. 2020, arXiv:2001.08361).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHINCHILLA = 20.0
"""Compute-optimal tokens per parameter, approximately (Hoffmann et al. 2022, arXiv:2203.15556)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """A training run, as its authors published it or as others estimated it."""

    name: str
    source: str
    parameters: float | None
    """Number of parameters; None if it was not published."""
    tokens: float | None
    """Tokens of the whole training; None if they were not published."""
    reported_flops: float | None = None
    """FLOPs as published or estimated; None if only the size is known."""
    is_estimated: bool = False
    """True if a number is an estimate of others, or of ours."""

    @property
    def flops(self) -> float:
        """6ND where both are known, otherwise what was reported."""
        if self.parameters is None or self.tokens is None:
            assert self.reported_flops is not None
            return self.reported_flops
        return 6 * self.parameters * self.tokens


PUBLISHED = (
    PublishedRun(
        name="GPT-2 1.5B, one pass",
        source="Radford et al. 2019: 40 GB of text; 4 bytes a token is an estimate, the number of passes is unknown",
        parameters=1.542e9,
        tokens=10e9,
        is_estimated=True,
    ),
    PublishedRun(
        name="GPT-3 175B",
        source="Brown et al. 2020, arXiv:2005.14165, table D.1",
        parameters=175e9,
        tokens=300e9,
        reported_flops=3.14e23,
    ),
    PublishedRun(
        name="Chinchilla 70B",
        source="Hoffmann et al. 2022, arXiv:2203.15556: the budget of Gopher",
        parameters=70e9,
        tokens=1.4e12,
        reported_flops=5.76e23,
    ),
    PublishedRun(
        name="Llama 2 7B", source="Touvron et al. 2023, arXiv:2307.09288, table 1", parameters=7e9, tokens=2e12
    ),
    PublishedRun(
        name="Llama 2 70B", source="Touvron et al. 2023, arXiv:2307.09288, table 1", parameters=70e9, tokens=2e12
    ),
    PublishedRun(
        name="Llama 3 8B", source="Meta 2024, model card: over 15 trillion tokens", parameters=8e9, tokens=15e12
    ),
    PublishedRun(
        name="Llama 3 70B", source="Meta 2024, model card: over 15 trillion tokens", parameters=70e9, tokens=15e12
    ),
    PublishedRun(
        name="Llama 3.1 405B",
        source="Grattafiori et al. 2024, arXiv:2407.21783",
        parameters=405e9,
        tokens=15.6e12,
        reported_flops=3.8e25,
    ),
    PublishedRun(
        name="GPT-4",
        source="Epoch AI's estimate; the technical report (arXiv:2303.08774) gives neither size nor tokens",
        parameters=None,
        tokens=None,
        reported_flops=2.1e25,
        is_estimated=True,
    ),
)
"""Published runs in the order of their publication."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute of one run."""

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
    """Return the value, None for NaN and infinity: a loop may report such a token count."""
    return value if math.isfinite(value) else None


def num_parameters(config: Mapping[str, Any]) -> int | None:
    """Return the number of parameters; None if the configuration does not have it."""
    value = config.get("num_parameters")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e18:
        return int(value)
    return None


def flops_per_token(config: Mapping[str, Any]) -> float | None:
    """6N."""
    parameters = num_parameters(config)
    return None if parameters is None else 6.0 * parameters
