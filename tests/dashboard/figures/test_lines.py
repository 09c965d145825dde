"""Values beyond the axis of their panel are marked on its edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import formatting
from dashboard.axes import PLAIN_STEPS
from dashboard.data.facts import Curve
from dashboard.figures.curves import run_figure
from dashboard.figures.lines import BEYOND_THE_AXIS, LIVE, PlacedLine, edge_markers
from dashboard.figures.marks import Marks
from dashboard.figures.panels import panel_layout
from tests.dashboard.series import plain, traces

PANEL = panel_layout(["loss"], ranges={"loss": (1.0, 3.0)}).panels[0]


def marked(values: list[float | None]) -> list[tuple[float, float, str]]:
    """Position and text of each triangle, in the order of the steps."""
    found = edge_markers(PANEL, [PlacedLine(plain(values), PLAIN_STEPS, LIVE)], (0.0, len(values) - 1.0))
    return sorted(
        (float(x), y, text) for trace in found for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True)
    )


def test_a_stretch_beyond_the_axis_is_one_triangle_at_its_extreme_with_its_value() -> None:
    values: list[float | None] = [2.0] * 1001
    values[100:104] = [4.0, 7.5, 141.25, 5.0]
    values[900] = -3.0
    values[500] = None
    assert marked(values) == [(102.0, 1.0, "141.2"), (900.0, 0.0, "-3")]


VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.floats(1.0, 3.0)


@pytest.mark.slow
@given(st.lists(VALUES, max_size=60), st.lists(VALUES, max_size=20), st.sampled_from(["loss", "grad_norm"]))
def test_every_finite_value_is_on_the_axis_or_has_a_triangle(
    live: list[float | None], discarded: list[float | None], metric: str
) -> None:
    curve = Curve(plain(live), {0: plain(discarded)})
    figure = run_figure({metric: curve}, Marks())
    axis, marks = figure.layout.yaxis, traces(figure, BEYOND_THE_AXIS)
    if axis.range is None:
        assert not any(value is not None and (value > 0 or axis.type != "log") for value in live + discarded)
        return
    assert axis.range[0] < axis.range[1]
    low, high = (10.0**end if axis.type == "log" else end for end in axis.range)
    for values, group in ((live, "live line"), (discarded, "discarded branch")):
        own = [mark for mark in marks if mark.legendgroup == group]
        up, down = (sum(y == edge for mark in own for y in mark.y) for edge in (1, 0))
        finite = [value for value in values if value is not None]
        assert (up > 0) == any(value > high for value in finite)
        assert (down > 0) == any(value < low for value in finite)
        texts = " ".join(text for mark in own for text in mark.customdata)
        assert not up or f"{formatting.number(max(finite))}: above" in texts
        assert not down or f"{formatting.number(min(finite))}: below" in texts
