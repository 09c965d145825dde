import math

import pytest

from benchmarks.growth import Curve, Growth, exponent, growth_of, lines

SIZES = (10, 100, 1_000, 10_000)


def curve(costs: dict[int, float]) -> Curve:
    return Curve("overview", "sqlite", "ms", costs)


def test_a_power_law_is_found_exactly() -> None:
    assert exponent({size: 3.0 * size**0.5 for size in SIZES}) == pytest.approx(0.5)
    assert curve({size: 3.0 * size**0.5 for size in SIZES}).per_tenfold == pytest.approx(math.sqrt(10))


def test_a_size_of_zero_is_shown_but_not_fitted() -> None:
    assert exponent({0: 7.0} | {size: 2.0 * size for size in SIZES}) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("costs", "growth"),
    [
        ({size: 5.0 for size in SIZES}, Growth.FLAT),
        ({size: 9.0 / size for size in SIZES}, Growth.FLAT),  # it falls
        ({size: math.log10(size) for size in SIZES}, Growth.LOGARITHMIC),
        ({size: size**0.5 for size in SIZES}, Growth.BELOW_LINEAR),
        ({size: 2.0 * size for size in SIZES}, Growth.LINEAR),
        ({size: size**1.5 for size in SIZES}, Growth.ABOVE_LINEAR),
    ],
)
def test_the_word_follows_from_the_costs(costs: dict[int, float], growth: Growth) -> None:
    assert curve(costs).growth == growth


def test_a_constant_part_does_not_hide_a_cost_that_grows_at_the_largest_sizes() -> None:
    costs = {size: 1_000.0 + size for size in SIZES}
    assert growth_of(exponent(costs)) != Growth.LINEAR
    assert curve(costs).last_tenfold == pytest.approx(5.5)
    assert curve(costs).growth == Growth.BELOW_LINEAR


def test_noise_of_a_fifth_around_a_constant_cost_is_flat() -> None:
    assert curve({10: 5.0, 100: 6.0, 1_000: 5.0, 10_000: 6.0}).growth == Growth.FLAT


@pytest.mark.parametrize("costs", [{0: 1.0, 10: 1.0}, {10: 1.0}, {10: 0.0, 100: 1.0}])
def test_too_few_sizes_or_a_cost_of_zero_are_refused_in_a_sentence(costs: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="the growth of a cost needs"):
        exponent(costs)


def test_a_curve_is_a_row_of_its_costs_its_growth_and_the_word_for_it() -> None:
    curve = Curve("overview", "SQLite", "ms", {10: 1.234, 100: 12.34, 1_000: 1_234.4})
    head, rule, row = lines("stored runs", [10, 100, 1_000], [curve])
    assert head == "| stored runs | store | 10 | 100 | 1,000 | for ten times as many | growth |"
    assert rule.count("|") == head.count("|")
    assert row == "| overview | SQLite | 1.23 ms | 12.3 ms | 1,234 ms | x 31.63, at last x 100.03 | above linear |"
