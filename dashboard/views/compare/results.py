"""The results of compared lines, one row each: held-out loss, perplexity, bits per byte, and the difference. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dashboard import formatting
from dashboard.axes import XAxis
from dashboard.data.facts import LatestValue
from dashboard.data.held_out import Difference
from dashboard.views.compare.tokenizers import Vocabulary

PLURAL_UNITS = {XAxis.STEP: "steps", XAxis.TOKENS: "tokens", XAxis.FLOPS: "FLOPs"}
UNITS = {XAxis.STEP: "step", XAxis.TOKENS: "tokens", XAxis.FLOPS: "FLOPs"}

RUN, VOCABULARY, METHOD = "Run", "Tokenizer, vocabulary", "Compared"
TEXT_COLUMNS = (RUN, VOCABULARY, METHOD)

MAX_EXP = 700.0
"""exp of a larger loss is infinite in double precision."""

MAX_WITH_DECIMALS = 1e6


@dataclass(frozen=True, slots=True)
class LineResult:
    """Result of one run or segment."""

    label: str
    loss: LatestValue | None
    """Held-out, in nats per token."""
    standard_error: LatestValue | None
    """Standard error of `loss`."""
    bits_per_byte: LatestValue | None
    vocabulary: Vocabulary
    difference: Difference | None
    """Difference from the baseline; None for the baseline itself."""


def table(results: Sequence[LineResult], x_axis: XAxis) -> pd.DataFrame:
    return pd.DataFrame(
        {
            RUN: each.label,
            "Held-out loss": _value(each.loss) + _error(each),
            "Perplexity": perplexity(each.loss),
            "Bits per byte": _value(each.bits_per_byte),
            "After step": "-" if each.loss is None else formatting.count(each.loss.step),
            VOCABULARY: str(each.vocabulary),
            "Minus baseline": _difference(each.difference),
            f"At {UNITS[x_axis]}": _position(each.difference, x_axis),
            METHOD: _method(each.difference),
        }
        for each in results
    )


def perplexity(loss: LatestValue | None) -> str:
    """exp(loss) of the same measurement."""
    if loss is None:
        return "-"
    return formatting.number(math.inf if loss.value >= MAX_EXP else math.exp(loss.value))


def _value(latest: LatestValue | None) -> str:
    return "-" if latest is None else _four_decimals(latest.value)


def _error(result: LineResult) -> str:
    """The standard error, if it is of the same measurement."""
    loss, error = result.loss, result.standard_error
    if loss is None or error is None or loss.step != error.step or not math.isfinite(error.value):
        return ""
    return f" \N{PLUS-MINUS SIGN} {_four_decimals(error.value)}"


def _four_decimals(value: float) -> str:
    """Format a usual loss with four decimals; a huge one with the digits that there is room for."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.4f}" if abs(value) < MAX_WITH_DECIMALS else formatting.number(value)


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "baseline"
    if not len(difference.y):
        return "-"
    last = float(difference.y[-1])
    return f"+{_four_decimals(last)}" if 0 <= last < math.inf else _four_decimals(last)


def _position(difference: Difference | None, x_axis: XAxis) -> str:
    """Return the position of the last difference."""
    if difference is None or not len(difference.x):
        return "-"
    position = float(difference.x[-1])
    match x_axis:
        case XAxis.FLOPS:
            return f"{position:.3e}"
        case XAxis.TOKENS:
            return formatting.abbreviated(position)
        case _:
            return formatting.count(round(position))


def _method(difference: Difference | None) -> str:
    if difference is None:
        return ""
    if not len(difference.x):
        return "no common point"
    return "both measured" if difference.exact else "baseline interpolated"
