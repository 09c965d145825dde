"""What plotly.js gets of a trace."""

import math

import numpy as np
import pytest

from dashboard.figures.packed_trace import packed

TRACE = {"y": [1.0, 1e290, math.nan], "hovertemplate": "loss %{y:.4~g} (%{customdata[0]:.4~g})<extra></extra>"}


def test_a_line_to_a_value_that_a_browser_cannot_reach_is_drawn_as_far_as_it_can_and_says_the_value() -> None:
    found = packed(TRACE, (0.0, 2.0), log=False)
    assert found["y"].tolist() == pytest.approx([1.0, 2e6 + 2, math.nan], nan_ok=True)
    assert found["text"] == ["1", "1.000e+290", "NaN"]
    assert found["hovertemplate"] == "loss %{text} (%{customdata[0]:.4~g})<extra></extra>"


@pytest.mark.parametrize(("shown", "log"), [(None, False), ((1.0, 2.0), True)])
def test_other_axes_keep_the_place_of_every_value(shown: tuple[float, float] | None, log: bool) -> None:
    found = packed(TRACE, shown, log=log)
    np.testing.assert_array_equal(found["y"], TRACE["y"])
    assert found["hovertemplate"] == TRACE["hovertemplate"]
