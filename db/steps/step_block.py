"""Steps of one segment as columns, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from db.lineage import StepRange
from db.steps.buckets import Floats, Ints
from db.steps.columns import Bools, MetricColumn

END = 2**63 - 1
"""Above every step."""


def end_of(step_range: StepRange) -> int:
    """The first step that is not in the range."""
    return END if step_range.last is None else step_range.last


class RunRange(NamedTuple):
    """Steps of a segment of one of several runs."""

    run_pk: int
    steps: StepRange


@dataclass(frozen=True, slots=True)
class Target:
    """A segment whose steps are written, and the numbers of its run's metrics by name."""

    run_pk: int
    segment: int
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StepBlock:
    """Steps of one segment in their order; every column has the same length N."""

    segment: int
    steps: Ints
    times: Floats
    """Unix seconds."""
    metrics: Mapping[str, MetricColumn]

    def __len__(self) -> int:
        return len(self.steps)

    def within(self, step_range: StepRange | None) -> Bools:
        """bool[N]: which of the steps are in the range; none without a range."""
        if step_range is None:
            return np.zeros(len(self), dtype=np.bool_)
        return (self.steps >= step_range.first) & (self.steps < end_of(step_range))

    def at(self, positions: Ints | slice) -> "StepBlock":
        """The steps at these positions."""
        metrics = {name: column.at(positions) for name, column in self.metrics.items()}
        return StepBlock(self.segment, self.steps[positions], self.times[positions], metrics)

    def with_metrics(self, names: Sequence[str]) -> "StepBlock":
        """Return the steps with these metrics; a metric that the block lacks was not reported."""
        nothing = MetricColumn.unreported(len(self))
        columns = {name: self.metrics.get(name, nothing) for name in names}
        return StepBlock(self.segment, self.steps, self.times, columns)


def joined(parts: Sequence[StepBlock], metrics: Sequence[str]) -> StepBlock:
    """Blocks of one segment, at least one, as one in the order of the steps; a step that several hold is taken once."""
    if len(parts) == 1:
        return parts[0]
    steps = np.concatenate([part.steps for part in parts])
    times = np.concatenate([part.times for part in parts])
    columns = {name: MetricColumn.joined([part.metrics[name] for part in parts]) for name in metrics}
    together = StepBlock(parts[0].segment, steps, times, columns)
    if (np.diff(steps) > 0).all():
        return together
    return together.at(np.unique(steps, return_index=True)[1])


def merged(parts: Sequence[StepBlock]) -> StepBlock:
    """Join the parts, with every metric that any part has."""
    filled = [part for part in parts if len(part)] or parts[:1]
    if len(filled) == 1:
        return filled[0]
    names = list(dict.fromkeys(name for part in filled for name in part.metrics))
    return joined([part.with_metrics(names) for part in filled], names)
