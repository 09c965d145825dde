"""The small line beside the loss of a run."""

import re
from urllib.parse import unquote

import pytest

from dashboard.figures.sparkline import HEIGHT, MARGIN, WIDTH, sparkline


def points(*values: float) -> list[tuple[float, float]]:
    found = re.search('points="([^"]*)"', unquote(sparkline(values, label="")))
    assert found is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


TOP, MIDDLE, BOTTOM = float(MARGIN), HEIGHT / 2, float(HEIGHT - MARGIN)
LEFT, RIGHT = float(MARGIN), float(WIDTH - MARGIN)


def test_the_line_reaches_from_the_smallest_to_the_largest_value() -> None:
    assert points(1.0, 3.0, 2.0) == [(LEFT, BOTTOM), (WIDTH / 2, TOP), (RIGHT, MIDDLE)]


@pytest.mark.parametrize("values", [(2.0,), (2.0, 2.0), (0.0, 5e-324)])
def test_a_constant_lies_in_the_middle(values: tuple[float, ...]) -> None:
    assert points(*values) == [(LEFT, MIDDLE), (RIGHT, MIDDLE)]


def test_the_largest_floats_can_be_drawn() -> None:
    assert points(-1.7e308, 1.7e308) == [(LEFT, BOTTOM), (RIGHT, TOP)]


def test_the_label_is_text() -> None:
    assert 'alt="&lt;b&gt; &quot;' in sparkline([1.0], label='<b> "')
