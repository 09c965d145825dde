"""Lines as compact SVG paths."""

import numpy as np

from dashboard.report.svg_paths import line_path, staircase, thinned


def test_a_spike_of_one_step_in_a_million_keeps_its_height_in_a_few_points() -> None:
    x = np.linspace(0, 700, 1_000_000)
    y = 100 + np.sin(x)
    y[123_456] = 3.0
    seen_x, seen_y = thinned(x, y)
    assert len(seen_x) <= 4 * 702
    assert seen_y.min() == 3.0
    assert (np.diff(seen_x) >= 0).all()


def test_a_thinned_line_keeps_its_gaps() -> None:
    x, y = np.linspace(0, 10, 10_000), np.ones(10_000)
    y[5_000:5_010] = np.nan
    assert np.isnan(thinned(x, y)[1]).any()


def test_a_line_is_broken_where_there_is_no_value_and_a_lone_value_is_a_dot() -> None:
    nan = np.nan
    assert line_path(np.array([0.0, 1, 2, 3, 4]), np.array([1.0, 2, nan, 4, nan])) == "M0,10l10,10M30,40h0"


def test_a_staircase_holds_a_value_until_the_next() -> None:
    x, y = staircase(np.array([0.0, 1, 2]), np.array([5.0, 6, 7]))
    assert (x.tolist(), y.tolist()) == ([0, 1, 1, 2, 2], [5, 5, 6, 6, 7])
