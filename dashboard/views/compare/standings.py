"""What compared runs have come to, one row each: held-out loss, perplexity, bits per byte, and the difference. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dashboard import formatting
from dashboard.data.facts import LatestValue
from dashboard.data.held_out import Difference
from dashboard.figures.axis import XAxis
from dashboard.views.compare.tokenizers import Vocabulary

PLURAL = {XAxis.STEP: "steps", XAxis.TOKENS: "tokens", XAxis.FLOPS: "FLOPs"}
UNITS = {XAxis.STEP: "step", XAxis.TOKENS: "tokens", XAxis.FLOPS: "FLOPs"}

RUN, VOCABULARY, HOW = "Run", "Tokenizer, vocabulary", "Compared"
TEXTS = (RUN, VOCABULARY, HOW)
"""Columns that hold no numbers."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one run or segment."""

    label: str
    loss: LatestValue | None
    """Held-out, in nats per token."""
    bits_per_byte: LatestValue | None
    vocabulary: Vocabulary
    difference: Difference | None
    """Against the baseline; None for the baseline itself."""


def table(standings: Sequence[Standing], x_axis: XAxis) -> pd.DataFrame:
    return pd.DataFrame(
        {
            RUN: each.label,
            "Held-out loss": _value(each.loss),
            "Perplexity": perplexity(each.loss),
            "Bits per byte": _value(each.bits_per_byte),
            "After step": "-" if each.loss is None else formatting.count(each.loss.step),
            VOCABULARY: str(each.vocabulary),
            "Minus baseline": _difference(each.difference),
            f"At {UNITS[x_axis]}": _place(each.difference, x_axis),
            HOW: _how(each.difference),
        }
        for each in standings
    )


def perplexity(loss: LatestValue | None) -> str:
    """exp(loss), of the same measurement."""
    if loss is None:
        return "-"
    return formatting.number(math.exp(loss.value) if loss.value < 700 else math.inf if loss.value >= 700 else math.nan)


def _value(reading: LatestValue | None) -> str:
    return "-" if reading is None else _digits(reading.value)


def _digits(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "not finite"


def _difference(found: Difference | None) -> str:
    if found is None:
        return "baseline"
    if not len(found.y):
        return "-"
    return f"{found.y[-1]:+.4f}" if math.isfinite(found.y[-1]) else "not finite"


def _place(found: Difference | None, x_axis: XAxis) -> str:
    if found is None or not len(found.x):
        return "-"
    at = float(found.x[-1])
    return (
        f"{at:.3e}"
        if x_axis is XAxis.FLOPS
        else formatting.abbreviated(at)
        if x_axis is XAxis.TOKENS
        else formatting.count(round(at))
    )


def _how(found: Difference | None) -> str:
    if found is None:
        return ""
    if not len(found.x):
        return "nowhere"
    return "both measured" if found.exact else "baseline interpolated"
