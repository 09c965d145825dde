"""Groups of runs, and the spread of a metric in them."""

import math

import pytest

from dashboard.views.runs.columns import column
from dashboard.views.runs.groups import Spread, grouped, spread
from tests.dashboard.views.runs.listed import listed

ROWS = [
    listed(f"r{at}", config={"lr": lr, "seed": at}, metrics={"loss": loss})
    for at, (lr, loss) in enumerate([(0.1, 1.0), (0.2, 4.0), (0.1, 3.0), (0.2, math.nan)])
]


def test_runs_are_grouped_by_a_setting_with_mean_deviation_and_number_of_finite_values() -> None:
    groups = grouped(ROWS, by=["lr"], columns=[column("last loss")])
    assert [(group.names, group.num_runs) for group in groups] == [(("0.1",), 2), (("0.2",), 2)]
    of_first = groups[0].spreads["last loss"]
    assert (of_first.mean, of_first.count) == (2.0, 2)
    assert of_first.deviation == pytest.approx(math.sqrt(2))
    assert groups[1].spreads["last loss"] == Spread(4.0, None, 1)


def test_several_settings_make_a_group_of_each_combination() -> None:
    assert [group.names for group in grouped(ROWS, by=["project", "seed"], columns=[])] == [
        ("gpt", "0"), ("gpt", "1"), ("gpt", "2"), ("gpt", "3"),
    ]  # fmt: skip


def test_what_is_no_finite_number_counts_for_nothing_and_large_values_do_not_overflow() -> None:
    assert spread(["a", None, math.inf, True]) == Spread(None, None, 0)
    assert spread([1e308, 1e308]) == Spread(1e308, 0.0, 2)
    assert spread([0.0, 0.0]) == Spread(0.0, 0.0, 2)
