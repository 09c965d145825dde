import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.cli.commands.series import Cell, cells, sparkline

COLUMNS = ("min", "max", "mean", "count", "non_finite")


def series(*values: float | None) -> dict[str, list[Any]]:
    """A bucket for each step; None: not finite."""
    return {name: list(values) for name in ("min", "max", "mean")} | {
        "count": [int(value is not None) for value in values],
        "non_finite": [int(value is None) for value in values],
    }


def drawn(*values: float | None, width: int = 80) -> str:
    return "".join(each.text for each in sparkline(cells(series(*values), width)))


def test_the_blocks_go_from_the_lowest_to_the_highest_value() -> None:
    assert drawn(*map(float, range(8))) == "▁▂▃▄▅▆▇█"
    assert drawn(1.0, 1.0) == "▁▁"


def test_a_value_that_is_not_finite_is_a_cross_however_wide_its_column_is() -> None:
    assert drawn(1.0, None, 2.0) == "▁✕█"
    assert drawn(*[1.0] * 50, None, *[2.0] * 49, width=10)[5] == "✕"


def test_a_spike_is_marked_at_the_edge_and_does_not_flatten_the_rest() -> None:
    assert drawn(*[float(each % 8) for each in range(32)], 1e46, *[3.0] * 8)[32] == "▲"
    assert "█" in drawn(*[float(each % 8) for each in range(32)], 1e46)
    assert drawn(*[float(each % 8) for each in range(32)], -1e46)[-1] == "▼"


def test_a_spike_inside_a_wide_column_is_not_averaged_away() -> None:
    values = [2.0 + 0.1 * (each % 5) for each in range(1000)]
    values[501] = 50.0
    assert drawn(*values, width=100)[50] == "▲"


def test_a_healthy_grad_norm_is_not_all_spikes() -> None:
    """The maxima of wide columns lie far above their means, all of them."""
    generator = random.Random(3)
    values = [generator.lognormvariate(-0.7, 0.5) for _ in range(5_000)]
    assert not set(drawn(*values, width=50)) & {"▲", "▼"}
    values[2_501] = 100.0
    assert drawn(*values, width=50).count("▲") == 1


def test_an_empty_series_is_an_empty_line() -> None:
    assert drawn() == ""
    assert cells(series(None, None), 1) == [Cell(None, None, None, 2)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False)), st.integers(1, 50))
def test_any_values_fit_the_width(values: list[float | None], width: int) -> None:
    assert len(drawn(*values, width=width)) <= width
