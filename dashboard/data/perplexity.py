"""Perplexity of buckets of steps, from their losses: so that its curve never contradicts that of the loss. Pure."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from db.queries import Series

PERPLEXITY, LOSS = "perplexity", "loss"
LARGEST_LOSS = math.log(sys.float_info.max)
"""Maximum loss in nats; the perplexity of a larger one is no float."""


def perplexity(loss: Series) -> Series:
    """exp of each column: that of a bucket is exp of its mean loss.

    The mean of the perplexities would be that of the largest ones.
    """
    return replace(
        loss,
        min=_exp(loss.min),
        max=_exp(loss.max),
        mean=_exp(loss.mean),
        first=_exp(loss.first),
        last=_exp(loss.last),
    )


def _exp(column: Sequence[float | None]) -> list[float | None]:
    """The largest float where exp of it is larger."""
    return [
        None if value is None else math.exp(value) if value < LARGEST_LOSS else sys.float_info.max for value in column
    ]
