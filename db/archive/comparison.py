"""Whether two blocks hold the same steps, to the last bit. Pure."""

import numpy as np
from numpy.typing import NDArray

from db.steps.columns import MetricColumn
from db.steps.step_block import StepBlock
from lossguard.vocabulary.wording import plural


def difference(expected: StepBlock, found: StepBlock) -> str | None:
    """What differs first, as the end of a sentence; None where nothing does. NaN payloads and signs of zero count."""
    if len(expected) != len(found):
        return f"{plural(len(found), 'step')} instead of {len(expected):,}"
    if expected.segment != found.segment:
        return f"segment {found.segment} instead of {expected.segment}"
    if not np.array_equal(expected.steps, found.steps):
        return "other steps"
    if not _same_bits(expected.times, found.times):
        return "other times"
    never = MetricColumn.of([None] * len(expected))
    for name in sorted({*expected.metrics, *found.metrics}):
        one, other = expected.metrics.get(name, never), found.metrics.get(name, never)
        if not np.array_equal(one.reported, other.reported):
            return f"the metric {name!r} reported at other steps"
        if not _same_bits(one.values[one.reported], other.values[other.reported]):
            return f"other values of the metric {name!r}"
    return None


def _same_bits(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.array_equal(one.view(np.uint64), other.view(np.uint64))
