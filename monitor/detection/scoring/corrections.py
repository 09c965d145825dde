"""Rows as the detectors are to see them.

Some are not one per step as the loop computed them: see `SourceFacts`. A smoothed loss is judged as it was before the
smoothing. With s the smoothed and x the true loss, a the weight of the past: s[k] = a s[k-1] + (1 - a) x[k], so
x[k] = s[k-1] + (s[k] - s[k-1]) / (1 - a). An `a` that is a little wrong changes the size of the noise, not the level.

Of some, the optimizer skipped the update: the gate, or any other loop that reports `skipped`. Such a row shows a batch,
or a computation, that did not touch the model. It is withheld from the detectors, so it is no incident and teaches
nothing, until the cap is reached: then the rows are judged as they are, and an incident begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from typing import Any, Self

import numpy as np

from lossguard.vocabulary.metrics import MAX_SKIPPED, SIGNALS, SKIP_WINDOW, SKIPPED
from lossguard.vocabulary.source_facts import SourceFacts
from monitor.detection.rows import Bools, Floats, Rows

MIN_LEVEL = 0.05
"""Nats: from a level above it no training gets to exactly 0. Below it a rounded loss does."""
MIN_PAIRED = 16
"""Rows in which grad norm and loss came together, before a grad norm without a loss says that the loss was left out."""


@dataclass(slots=True)
class SourceCorrection:
    """Corrects the loss of rows, in their order. The state is exact: any split of a stream gives the same rows."""

    facts: SourceFacts = field(default_factory=SourceFacts)
    last_loss: float = nan
    """The last loss as it was logged; NaN where there is none."""
    num_paired: int = 0
    """Rows so far in which grad norm and loss came together, since one in which they did not, at most MIN_PAIRED."""

    def apply(self, rows: Rows) -> Rows:
        """The rows with the loss as it was before it was filtered or smoothed, as far as that can be known."""
        facts, is_reported = self.facts, "loss" in rows.metrics
        if not (facts.nan_filtered or (facts.smoothing and is_reported)):
            return rows
        loss = rows.metrics["loss"] if is_reported else np.full(len(rows), nan)
        present = rows.present["loss"] if is_reported else np.zeros(len(rows), dtype=bool)
        if facts.nan_filtered:
            hidden = self._zeros(loss, present) | self._left_out(present, rows.present.get("grad_norm"))
            loss, present = np.where(hidden, nan, loss), present | hidden
        if self.facts.smoothing:
            loss = self._before_smoothing(loss, present)
        else:
            usable = loss[np.isfinite(loss) & (loss != 0.0)]
            self.last_loss = float(usable[-1]) if len(usable) else self.last_loss
        return replace(rows, metrics={**rows.metrics, "loss": loss}, present={**rows.present, "loss": present})

    def _zeros(self, loss: Floats, present: Bools) -> Bools:
        """Losses of exactly 0 after a level from which no training gets there."""
        zeros: Bools = present & (loss == 0.0)
        if not zeros.any():
            return zeros
        known = np.concatenate([[self.last_loss], loss])
        usable = np.isfinite(known) & (known != 0.0)
        newest = np.maximum.accumulate(np.where(usable, np.arange(len(known)), 0))
        before = known[newest[:-1]]
        hidden: Bools = zeros & ~(np.abs(before) < MIN_LEVEL)  # also where nothing is known
        return hidden

    def _left_out(self, has_loss: Bools, has_norm: Bools | None) -> Bools:
        """Rows with a grad norm and without a loss, where both have always come together."""
        left_out = np.zeros(len(has_loss), dtype=bool)
        if has_norm is None:
            return left_out
        for k in np.flatnonzero(has_norm).tolist():
            if has_loss[k]:
                self.num_paired = min(self.num_paired + 1, MIN_PAIRED)
            elif self.num_paired == MIN_PAIRED:
                left_out[k] = True
            else:
                self.num_paired = 0
        return left_out

    def _before_smoothing(self, loss: Floats, present: Bools) -> Floats:
        where = np.flatnonzero(present)
        values = loss[where]
        before = np.concatenate([[self.last_loss], values[:-1]])
        raw = before + (values - before) / (1.0 - self.facts.smoothing)
        corrected = loss.copy()
        corrected[where] = np.where(np.isfinite(before), raw, values)
        if len(values):
            self.last_loss = float(values[-1])
        return corrected

    def to_dict(self) -> dict[str, Any]:
        last = self.last_loss if isfinite(self.last_loss) else None
        return {"facts": self.facts.to_details(), "last_loss": last, "num_paired": self.num_paired}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo `to_dict`. Raises KeyError, TypeError or ValueError for what is no such state."""
        last = state["last_loss"]
        facts = SourceFacts.from_details(state["facts"])
        return cls(facts, nan if last is None else float(last), int(state["num_paired"]))


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
    searched_until: int = -1
    """Last of the skipped updates with which the run began: a GradScaler looks for its scale with them."""

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
            first = None if self._is_search(step, earlier) else self._count(step, skipped[k])
            if first is not None:
                caps[k] = first
            elif step > self.judged_until:
                withheld[k] = skipped[k] >= num_updates  # a row of more updates shows others too
        if not withheld.any():
            return rows, Skips(caps=caps)
        present = {name: known & ~withheld if name in SIGNALS else known for name, known in rows.present.items()}
        return replace(rows, present=present), Skips(withheld, caps)

    def _is_search(self, step: int, earlier: int | None) -> bool:
        """Return True if no update was taken before this step, one of the first SKIP_WINDOW steps of the run."""
        is_search = step < SKIP_WINDOW and (step <= 1 if earlier is None else earlier == self.searched_until)
        if is_search:
            self.searched_until = step
        return is_search

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
        return bool(self.recent) or self.judged_until >= 0 or self.searched_until >= 0
