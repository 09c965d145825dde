"""A line of a figure: its buckets, their positions along the x axis, and its style. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dashboard.axes import Floats, StepAxis
from dashboard.figures.line_style import LineStyle
from db.queries import Series


@dataclass(slots=True)
class PlacedLine:
    """Columns of equal length, NaN where a bucket has no finite value: plotly draws it as a gap."""

    series: Series
    step_axis: StepAxis
    style: LineStyle
    x: Floats = field(init=False)
    low: Floats = field(init=False)
    high: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.step_axis.at(self.series.first_step)
        self.low, self.high = floats(self.series.min), floats(self.series.max)

    @property
    def largest(self) -> float:
        """Size of the largest value; 0 without any."""
        sizes = np.fmax(np.abs(self.low), np.abs(self.high))
        return float(np.fmax.reduce(sizes, initial=0.0))


def floats(values: Sequence[float | None]) -> Floats:
    """Convert to floats; None becomes NaN."""
    return np.array(values, dtype=np.float64)


def extent(lines: Sequence[PlacedLine]) -> tuple[Floats, Floats]:
    """The smallest and the largest value of each bucket of all lines."""
    if len(lines) == 1:
        return lines[0].low, lines[0].high
    return (
        np.concatenate([np.empty(0), *(line.low for line in lines)]),
        np.concatenate([np.empty(0), *(line.high for line in lines)]),
    )
