import xml.etree.ElementTree as ET

import pytest

from trainer.lab.plot import HEIGHT, LEFT, RIGHT, WIDTH, Axis, PlottedCurve, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def _points(text: str) -> list[tuple[float, float]]:
    (line,) = ET.fromstring(text).findall(f"{NAMESPACE}polyline")
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in line.attrib["points"].split())]


@pytest.mark.parametrize("is_log", [False, True])
def test_points_lie_within_the_axes_and_in_proportion(is_log: bool) -> None:
    y = [1.0, 10.0, 100.0] if is_log else [1.0, 2.0, 3.0]
    curve = PlottedCurve(name="a < b", x=[0.0, 1.0, 2.0], y=y)
    text = svg("title", [curve], Axis(title="x"), Axis(title="y", is_log=is_log))
    (x0, y0), (x1, y1), (x2, y2) = _points(text)
    assert LEFT < x0 < x1 < x2 < WIDTH - RIGHT
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert 0 < y2 < y0 < HEIGHT


@pytest.mark.parametrize(
    ("values", "is_log", "ticks"),
    [
        ([0.0, 10.0], False, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
        ([1.0, 100.0], True, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]),
        ([1e9, 1e15], True, [1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]),
        ([3.0, 3.0], False, [3.0]),
        ([], False, []),
    ],
)
def test_ticks_are_round_numbers(values: list[float], is_log: bool, ticks: list[float]) -> None:
    assert Axis(title="x", is_log=is_log).ticks(values) == pytest.approx(ticks)


def test_names_are_escaped_and_an_empty_plot_is_still_one() -> None:
    text = svg("a & b", [PlottedCurve(name="<x>", x=[], y=[])], Axis(title="x"), Axis(title="y"))
    assert {"a & b", "<x>"} <= {element.text for element in ET.fromstring(text).iter()}
