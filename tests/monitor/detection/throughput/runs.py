"""Times of the steps of small runs."""

from collections.abc import Sequence

import numpy as np

from monitor.detection.rows import Floats, Rows

START = 1_800_000_000.0


def durations(steps: int, *, seconds: float = 1.0, noise: float = 0.03, seed: int = 0) -> Floats:
    """Seconds of each step, with multiplicative noise."""
    return seconds * np.exp(noise * np.random.default_rng(seed).standard_normal(steps))


def timed(
    seconds: Floats, *, tokens: Sequence[float] | None = None, waited: Floats | None = None, stride: int = 1
) -> Rows:
    """Rows of a run whose steps take these seconds; `stride`: only every such step has a row."""
    steps = np.arange(len(seconds))
    columns: dict[str, Floats] = {"loss": np.full(len(seconds), 3.0)}
    if tokens is not None:
        columns["tokens"] = np.asarray(tokens, dtype=np.float64)
    if waited is not None:
        columns["data_seconds"] = waited
    kept = {name: column[::stride] for name, column in columns.items()}
    present = {name: np.isfinite(column) for name, column in kept.items()}
    return Rows(steps[::stride], kept, present, START + np.cumsum(seconds)[::stride])


def with_slow_steps(seconds: Floats) -> Floats:
    """The same with a checkpoint every 50 steps (10 times as long) and an evaluation every 100 (20 times)."""
    slow = seconds.copy()
    slow[49::50] *= 10
    slow[99::100] *= 2
    return slow
