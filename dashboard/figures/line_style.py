"""Style of the line of a branch or of a run. Pure."""

from dataclasses import dataclass

from dashboard.figures.non_finite import HEIGHT
from dashboard.figures.style import BLUE, GREY, PURPLE


@dataclass(frozen=True, slots=True)
class LineStyle:
    """Style of the line of a branch."""

    name: str
    color: str
    width: float
    note: str = ""
    """Text after the metric's name in the hover text."""
    dash: str = "solid"
    cross_color: str = PURPLE
    """Colour of the crosses for values that are not finite."""
    cross_height: float = HEIGHT
    """Height of these crosses in their panel, 0..1."""


LIVE = LineStyle("live line", BLUE, 1.8)
DISCARDED = LineStyle("discarded branch", GREY, 1.2, " (discarded)")
