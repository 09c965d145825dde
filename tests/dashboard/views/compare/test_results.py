"""The table of results, with values that are missing or not finite."""

import math

import numpy as np

from dashboard.axes import XAxis
from dashboard.data.facts import LatestValue
from dashboard.data.held_out import Difference
from dashboard.views.compare.results import LineResult, table
from dashboard.views.compare.tokenizers import Vocabulary


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
    return {str(name): text for name, text in table([result], x_axis).iloc[0].items()}


def at(x: float, y: float, exact: bool = True) -> Difference:
    return Difference(np.array([x]), np.array([y]), exact)


def test_perplexity_is_exp_of_the_held_out_loss_and_stands_beside_bits_per_byte() -> None:
    found = row(math.log(8), bits=3.0)
    assert (found["Held-out loss"], found["Perplexity"], found["Bits per byte"]) == ("2.0794", "8", "3.0000")
    assert (found["After step"], found["Tokenizer, vocabulary"]) == ("299", "bytes, 256 tokens")


def test_a_held_out_loss_has_the_standard_error_of_the_same_measurement() -> None:
    assert row(2.0, error=LatestValue(299, 0.03125))["Held-out loss"] == "2.0000 \N{PLUS-MINUS SIGN} 0.0312"
    for other in (LatestValue(199, 0.03), LatestValue(299, math.nan)):
        assert row(2.0, error=other)["Held-out loss"] == "2.0000"


def test_a_loss_that_is_not_finite_or_too_large_for_exp_is_shown_as_such() -> None:
    assert (row(math.nan)["Held-out loss"], row(math.nan)["Perplexity"]) == ("not finite", "NaN")
    assert row(800.0)["Perplexity"] == "infinity"


def test_a_run_without_held_out_loss_has_dashes() -> None:
    found = row(None, difference=Difference(np.empty(0), np.empty(0), True))
    names = ("Held-out loss", "Perplexity", "Bits per byte", "After step", "Minus baseline")
    assert {found[name] for name in names} == {"-"}
    assert found["Compared"] == "no common point"


def test_a_difference_is_shown_with_its_position_and_method() -> None:
    found = row(2.0, difference=at(299, -0.1142))
    assert (found["Minus baseline"], found["At step"], found["Compared"]) == ("-0.1142", "299", "both measured")
    found = row(2.0, difference=at(6.5e6, 0.25, exact=False), x_axis=XAxis.TOKENS)
    assert (found["Minus baseline"], found["At tokens"]) == ("+0.2500", "6.5 M")
    assert found["Compared"] == "baseline interpolated"
    assert row(2.0, difference=at(2.27e12, math.nan), x_axis=XAxis.FLOPS)["Minus baseline"] == "not finite"
    assert row(2.0)["Minus baseline"] == "baseline"


def test_a_huge_loss_is_written_with_a_power() -> None:
    found = row(1e308, difference=at(299, 1e308))
    assert (found["Held-out loss"], found["Minus baseline"]) == ("1.000e+308", "+1.000e+308")
    assert row(2.0, difference=at(299, -math.inf))["Minus baseline"] == "not finite"
