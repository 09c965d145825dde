"""The steps that a run can restore, where each checkpoint is kept, how long it takes to load, and a step's batch."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossguard.vocabulary.protocol import MAX_COUNT
from monitor.detection.rows import Row, Rows

MAX_RECENT_STEPS, MAX_OLDER_STEPS = 192, 64
"""Restorable steps that are kept of a longer list: the newest, and so many spread evenly over the rest."""

MAX_OFFSETS = 512
"""Offsets of batches to steps that are kept: the newest."""

Tiers = Sequence[Mapping[str, Any]]
"""Tiers as a report names them: tier, steps, and optionally load_seconds (None or missing: not measured)."""


NAMES = {"remote": "a URL"}
"""Tiers whose name would not be understood in a sentence."""


@dataclass(frozen=True, slots=True)
class RestorableStep:
    """A step whose checkpoint can be loaded."""

    step: int
    tier: str | None = None
    """`lossguard.vocabulary.states.Tier`, or the name of one that a later SDK knows; None: the trainer does not say."""
    load_seconds: float | None = None
    """Duration of the last load from this tier; None: not measured."""

    def describe(self) -> str:
        """Return a text such as "from memory, 0.1 s"; empty if nothing is known."""
        if self.tier is None:
            return ""
        return f"from {NAMES.get(self.tier, self.tier)}" + (
            "" if self.load_seconds is None else f", {_seconds(self.load_seconds)}"
        )


def _seconds(value: float) -> str:
    if value < 0.01:
        return "under 0.01 s"
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def restorable_steps(steps: Iterable[int], tiers: Tiers | None = None) -> list[RestorableStep]:
    """The steps, ascending, with what the tiers say of them."""
    ascending = sorted(map(int, steps))
    unplaced = set(ascending)
    found: dict[int, RestorableStep] = {}
    for tier in tiers or ():
        here = unplaced.intersection(tier["steps"])
        found |= {step: RestorableStep(step, tier["tier"], tier.get("load_seconds")) for step in here}
        unplaced -= here
    return [found.get(step) or RestorableStep(step) for step in ascending]


def thinned(steps: Sequence[int]) -> list[int]:
    """Keep at most MAX_RECENT_STEPS + MAX_OLDER_STEPS steps, with the oldest: the stored state stays small."""
    old, recent = steps[:-MAX_RECENT_STEPS], steps[-MAX_RECENT_STEPS:]
    if len(old) <= MAX_OLDER_STEPS:
        return list(steps)
    return [*(old[k * len(old) // MAX_OLDER_STEPS] for k in range(MAX_OLDER_STEPS)), *recent]


def by_tier(restorable: Sequence[RestorableStep]) -> list[dict[str, Any]]:
    """The tiers of these steps, as a report names them."""
    tiers: dict[tuple[str, float | None], list[int]] = {}
    for each in restorable:
        if each.tier is not None:
            tiers.setdefault((each.tier, each.load_seconds), []).append(each.step)
    return [{"tier": tier, "steps": steps, "load_seconds": seconds} for (tier, seconds), steps in tiers.items()]


@dataclass(slots=True)
class BatchIndex:
    """batch = step + offset, where the offset changes at a few steps. An unknown step has the last known offset.

    Steps before the oldest of the kept offsets have that one.
    """

    steps: list[int] = field(default_factory=lambda: [0])
    offsets: list[int] = field(default_factory=lambda: [0])

    def batch_of(self, step: int) -> int:
        return step + self.offsets[max(bisect_right(self.steps, step) - 1, 0)]

    def update(self, rows: Rows) -> None:
        """Read the `batch_index` column, where it is logged."""
        known = rows.present.get("batch_index")
        if known is None or not known.any():
            return
        column = rows.metrics["batch_index"]
        known = known & np.isfinite(column)
        offsets = column[known].astype(np.int64) - rows.steps[known]
        last = np.concatenate([self.offsets[-1:], offsets[:-1]])
        for k in np.flatnonzero(offsets != last):
            step = int(rows.steps[known][k])
            self.rewind(step)
            self.steps.append(step)
            self.offsets.append(int(offsets[k]))
            del self.steps[:-MAX_OFFSETS], self.offsets[:-MAX_OFFSETS]
            self.steps[0] = 0

    def read_row(self, row: Row) -> None:
        """Take in one row."""
        batch = row.values.get("batch_index")
        if batch is not None and not (abs(batch) < MAX_COUNT and int(batch) - row.step == self.offsets[-1]):
            self.update(row.as_rows())

    def rewind(self, step: int) -> None:
        """Forget the offsets of `step` and later (the first entry stays)."""
        keep = max(bisect_right(self.steps, step - 1), 1)
        del self.steps[keep:], self.offsets[keep:]
