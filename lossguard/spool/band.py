"""The run's own band, and whether the loss and the gradient norm of the last steps lie in it. Pure.

The band is wide: a spike that lasts leaves it; single values, noise and a loss that falls do not.
"""

import math
from collections.abc import Sequence

MAX_STEPS = 400
"""Number of the newest steps that are looked at."""
MIN_BEFORE = 64
"""Minimum number of values before the newest quarter; with fewer, nothing is judged."""
LAST, ABOVE = 8, 6
"""Number of last values, and how many of them must be above the band."""
HEIGHT = 2.5
"""Height of the band above the median, in distances between the lowest and the highest tenth: 6.4 deviations."""
LEAP = 1.5
"""Factor by which the last values must exceed all newest ones within the band, measured from the median."""
LOSS_SHARE, NORM_FACTOR = 0.1, 4.0
"""Minimum height of the band: as a share of the median loss, and as a multiple of the median norm."""
Measured = tuple[int, float | None, float | None]
"""Step, loss and gradient norm; None: not measured."""


def above_band(steps: Sequence[Measured], before: int) -> str | None:
    """Say, as a clause, what is above its band just before the step `before`; None: nothing, as far as is known."""
    known = [each for each in steps if each[0] < before]
    losses = [math.inf if math.isnan(loss) else loss for _, loss, _ in known if loss is not None]
    norms = [math.log(norm) for _, _, norm in known if norm is not None and math.isfinite(norm) and norm > 0]
    if (top := _top_that_was_left(losses, share=LOSS_SHARE)) is not None:
        return f"the loss of step {before - 1} is in a spike: {losses[-1]:.4g}, and its band ends at {top:.4g}"
    if (top := _top_that_was_left(norms, least=math.log(NORM_FACTOR))) is not None:
        found, end = math.exp(norms[-1]), math.exp(top)
        return f"the gradient norm of step {before - 1} is in a spike: {found:.4g}, and its band ends at {end:.4g}"
    return None


def _top_that_was_left(values: Sequence[float], *, least: float = 0.0, share: float = 0.0) -> float | None:
    """Return the top of the band of the values before the newest quarter; None unless the last values are above it.

    The newest quarter does not count, so that a spike does not widen the band for as long as it may last; but it must
    show a leap: a value that rises slowly is not in a spike. A trend widens the band: early in a run only large spikes
    leave it.
    """
    num_recent = max(LAST, len(values) // 4)
    band, recent = sorted(filter(math.isfinite, values[:-num_recent])), values[-num_recent:]
    if len(band) < MIN_BEFORE:
        return None
    low, median, high, highest = (band[int(share_below * (len(band) - 1))] for share_below in (0.1, 0.5, 0.9, 0.99))
    if not math.isfinite(high - low):
        return None
    top = max(highest, median + max(HEIGHT * (high - low), least, share * abs(median)))
    within = max((value for value in recent if value <= top), default=median)
    top = max(top, median + LEAP * (within - median))
    return top if sum(value > top for value in recent[-LAST:]) >= ABOVE else None
