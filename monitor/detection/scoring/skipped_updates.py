"""Rows whose update the optimizer skipped: the gate's, or any other loop's that reports `skipped`.

Such a row shows a batch, or a computation, that did not touch the model. It is withheld from the detectors, so it is no
incident and teaches nothing, until the cap is reached: then the rows are judged as they are, and an incident begins.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from lossguard.vocabulary.gating import MAX_SKIPPED, SKIP_WINDOW, SKIPPED
from lossguard.vocabulary.metrics import SIGNALS
from monitor.detection.encoding import known_fields
from monitor.detection.rows import Bools, Rows


@dataclass(frozen=True, slots=True)
class Skips:
    """Meaning of the skipped updates of some rows."""

    withheld: Bools | None = None
    """The rows that no detector has seen; None for none."""
    caps: Mapping[int, int] = field(default_factory=dict)
    """Row -> the step of the first skipped update, where the cap is reached."""


@dataclass(slots=True)
class SkippedUpdates:
    """Counts skipped updates row by row; any split of a stream gives the same."""

    recent: list[int] = field(default_factory=list)
    """The steps of the last ones within SKIP_WINDOW steps, one entry for each skipped update."""
    judged_until: int = -1
    """Last step up to which rows are judged although their update was skipped: the cap was reached before."""
    last_step: int | None = None

    def apply(self, rows: Rows) -> tuple[Rows, Skips]:
        """The rows without the signals of those that are withheld."""
        skipped = rows.metrics.get(SKIPPED)
        before, self.last_step = self.last_step, int(rows.steps[-1])
        if skipped is None:
            return rows, Skips()
        withheld, caps = np.zeros(len(rows), dtype=bool), {}
        for k in np.flatnonzero(skipped > 0).tolist():
            step = int(rows.steps[k])
            earlier = int(rows.steps[k - 1]) if k else before
            num_updates = 1 if earlier is None else step - earlier
            first = self._count(step, skipped[k])
            if first is not None:
                caps[k] = first
            elif step > self.judged_until:
                withheld[k] = skipped[k] >= num_updates  # a row of more updates shows others too
        if not withheld.any():
            return rows, Skips(caps=caps)
        present = {name: known & ~withheld if name in SIGNALS else known for name, known in rows.present.items()}
        return replace(rows, present=present), Skips(withheld, caps)

    def _count(self, step: int, num_skipped: float) -> int | None:
        """Count a row's skipped updates. Returns the step of the first of them if the cap is reached."""
        if step <= self.judged_until:
            return None
        self.recent = [each for each in self.recent if each > step - SKIP_WINDOW]
        self.recent += [step] * int(min(num_skipped, MAX_SKIPPED))
        if len(self.recent) < MAX_SKIPPED:
            return None
        first, self.recent, self.judged_until = self.recent[0], [], step + SKIP_WINDOW
        return first

    def is_needed(self) -> bool:
        """True if anything of it matters to the rows that follow."""
        return bool(self.recent) or self.judged_until >= 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo `to_dict`."""
        return cls(**known_fields(cls, dict(state)))
