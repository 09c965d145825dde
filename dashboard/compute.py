"""What a run's training costs, from what it recorded. Pure.

The number of parameters N is `num_parameters` of the run's configuration (the trainer records it; a loop of one's own
can). Training costs about 6ND floating-point operations for D tokens (Kaplan et al. 2020, arXiv:2001.08361).
"""

from collections.abc import Mapping
from typing import Any


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
