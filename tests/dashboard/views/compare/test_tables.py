"""The table of results, with values that are missing or not finite."""

import math

import numpy as np

from dashboard.axes import XAxis
from dashboard.data.comparison.configurations import Vocabulary
from dashboard.data.comparison.held_out import Difference
from dashboard.data.facts import LatestValue
from dashboard.views.compare.tables import LineResult, result_table


def row(
    loss: float | None,
    *,
    difference: Difference | None = None,
    x_axis: XAxis = XAxis.STEP,
    bits: float | None = None,
    error: LatestValue | None = None,
) -> dict[str, str]:
    reading, other = (None if value is None else LatestValue(299, value) for value in (loss, bits))
    result = LineResult("a", reading, error, other, Vocabulary("bytes", 256), difference)
    return {str(name): text for name, text in result_table([result], x_axis).iloc[0].items()}


def at(x: float, y: float, exact: bool = True) -> Difference:
    return Difference(np.array([x]), np.array([y]), exact)


def test_a_loss_that_is_not_finite_or_too_large_for_exp_is_shown_as_such() -> None:
    assert (row(math.nan)["Held-out loss"], row(math.nan)["Perplexity"]) == ("not finite", "NaN")
    assert row(800.0)["Perplexity"] == "infinity"


def test_a_difference_is_shown_with_its_position_and_method() -> None:
    found = row(2.0, difference=at(299, -0.1142))
    assert (found["Minus baseline"], found["At step"], found["Compared"]) == ("-0.1142", "299", "both measured")
    found = row(2.0, difference=at(6.5e6, 0.25, exact=False), x_axis=XAxis.TOKENS)
    assert (found["Minus baseline"], found["At tokens"]) == ("+0.2500", "6.5 M")
    assert found["Compared"] == "baseline interpolated"
    assert row(2.0, difference=at(2.27e12, math.nan), x_axis=XAxis.FLOPS)["Minus baseline"] == "not finite"
    assert row(2.0)["Minus baseline"] == "baseline"
