"""The incident of a held-out loss that rises while the training loss does not: the run learns its data by heart.

Evaluations are rare, so they have a band of their own: the scatter of the run's evaluations about their trend. The
incident only warns; no policy answers it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Effect, Incident, IncidentChanged
from monitor.detection.encoding import dump, load, pack, unpack
from monitor.detection.incidents.open_incident import closed_incident
from monitor.detection.rows import Floats, Row, Rows

HELD_OUT_LOSS, LOSS = "held_out_loss", "loss"
MIN_EVALUATIONS = 6
"""Minimum number of finite evaluations that a rise is judged by."""
MAX_EVALUATIONS = 64
"""Number of the newest evaluations that are kept."""
MIN_STEPS = 8
"""Minimum steps between two evaluations that are read: closer ones would not be independent."""
NUM_JUDGED = 3
"""Number of the newest evaluations whose median is judged, so that a single high one is no incident."""
NUM_FOR_NOISE = 32
"""Number of the newest evaluations whose second differences give the noise: a slope does not change these."""
MAX_VALUE = 1e150
"""Larger values are judged as this one, so that no difference overflows."""
DEVIATIONS = 6.0
"""Smallest rise that is an incident, in standard deviations of the noise."""
RELATIVE_RISE = 0.01
"""Smallest rise that is an incident, as a share of the lowest level: a smaller one matters to nobody."""
NEW_NORMAL = "data_mix"
"""Kind of the declared event after which the held-out loss may have another level."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One held-out loss, with the mean of the finite training losses since the one before (nan: there were none)."""

    step: int
    held_out: float
    training: float


@dataclass(slots=True)
class HeldOutIncidents:
    """Reads the evaluations of a run; at most one incident is open. The state is exact under any split of the rows."""

    evaluations: list[Evaluation] = field(default_factory=list)
    """The newest ones of the live line."""
    total: float = 0.0
    """Sum of the finite training losses since the last evaluation."""
    count: int = 0
    """Number of these losses."""
    declared: list[int] = field(default_factory=list)
    """Steps at which a change of the level was declared."""
    open: Incident | None = None

    def observe(self, rows: Rows) -> Iterator[tuple[int, Incident]]:
        """Yield each change of an incident by the evaluations among these rows, with the number of the rows up to it.

        A new incident has the number 0. The caller must `report` each one before it asks for the next.
        """
        present = rows.present.get(HELD_OUT_LOSS, np.zeros(len(rows), dtype=bool))
        start = 0
        for position in np.flatnonzero(present).tolist():
            step = int(rows.steps[position])
            held_out = float(rows.metrics[HELD_OUT_LOSS][position])
            if self.evaluations and not self._is_new(step, held_out):
                continue
            self._add(rows, start, start := position + 1)
            training = self.total / self.count if self.count else math.nan
            self.total, self.count = 0.0, 0
            for incident in self._evaluate(Evaluation(step, held_out, training)):
                yield start, incident
        self._add(rows, start, len(rows))

    def observe_row(self, row: Row) -> None:
        """Read a row without an evaluation."""
        if self.evaluations and math.isfinite(loss := row.values.get(LOSS, math.nan)):
            self.total += loss
            self.count += 1

    def report(self, incident: Incident, take_number: Callable[[], int]) -> list[Effect]:
        """Take over a change that `observe` has yielded, and return it as an effect."""
        if not incident.number:
            incident = replace(incident, number=take_number())
        self.open = incident if incident.end_step is None else None
        return [IncidentChanged(incident)]

    def _is_new(self, step: int, held_out: float) -> bool:
        """Return False for an evaluation that is reported once more: a run may do so with every row."""
        before = self.evaluations[-1]
        is_same = held_out == before.held_out or (math.isnan(held_out) and math.isnan(before.held_out))
        return not is_same and step >= before.step + MIN_STEPS

    def _add(self, rows: Rows, start: int, end: int) -> None:
        losses = rows.metrics.get(LOSS)
        if losses is None or not self.evaluations:
            return
        part: Floats = losses[start:end]
        finite = part[np.isfinite(part)]
        if len(finite):  # summed one after the other: the same however the rows are split
            with np.errstate(over="ignore"):
                self.total = float(np.add.accumulate(np.append(self.total, finite))[-1])
            self.count += len(finite)

    def _evaluate(self, new: Evaluation) -> Iterator[Incident]:
        if self.declared and new.step >= self.declared[0]:
            self.declared = [step for step in self.declared if step > new.step]
            self.evaluations = []
            if self.open is not None:
                yield closed_incident(self.open, new.step, Outcome.ONGOING, "A change of the data was declared.")
        self.evaluations = [*self.evaluations, new][-MAX_EVALUATIONS:]
        rise = Rise.of(self.evaluations)
        if self.open is None:
            if rise is not None and rise.score >= 1.0:
                yield rise.incident()
        elif rise is not None and rise.height_above(self._lowest(rise)) <= 0.5 * rise.threshold:
            reason = f"At step {new.step} it is back at {rise.level:.4g}."
            yield closed_incident(self.open, new.step, Outcome.RECOVERED, reason)
        elif new.held_out > self.open.peak_value or (math.isnan(new.held_out) and not math.isnan(self.open.peak_value)):
            score = max(self.open.score, 0.0 if rise is None else round(rise.score, 3))
            yield replace(self.open, peak_step=new.step, peak_value=new.held_out, score=score)

    def _lowest(self, rise: "Rise") -> float:
        """The lowest level: the open incident knows the one before it, which may be too old for `evaluations`."""
        if self.open is None or not math.isfinite(self.open.peak_value):
            return rise.best.held_out
        return min(rise.best.held_out, self.open.expected)

    # Actions of the trainer

    def declare(self, step: int, kind: str) -> None:
        """Take note of an event that takes effect at `step`."""
        if kind == NEW_NORMAL:
            self.declared = sorted({*self.declared, step})

    def go_back(self, step: int) -> list[Effect]:
        """Forget the evaluations from `step` on: a segment begins there, so they are of a discarded branch."""
        self.evaluations = [each for each in self.evaluations if each.step < step]
        self.total, self.count = 0.0, 0
        incident = self.open
        if incident is None or incident.onset_step < step:
            return []
        self.open = None
        reason = f"The run went back to step {step}, before it."
        return [IncidentChanged(closed_incident(incident, incident.detected_step, Outcome.ONGOING, reason))]

    # Persistence

    def to_dict(self) -> dict[str, Any]:
        return {
            "steps": [each.step for each in self.evaluations],
            "held_out": pack([each.held_out for each in self.evaluations]),
            "training": pack([each.training for each in self.evaluations]),
            "total": pack([self.total]),
            "count": self.count,
            "declared": self.declared,
            "open": None if self.open is None else dump(self.open),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "HeldOutIncidents":
        """The inverse of `to_dict`."""
        columns = unpack(data["held_out"]).tolist(), unpack(data["training"]).tolist()
        return cls(
            [Evaluation(*each) for each in zip(data["steps"], *columns, strict=True)],
            float(unpack(data["total"])[0]),
            data["count"],
            data["declared"],
            None if data["open"] is None else load(Incident, data["open"]),
        )


@dataclass(frozen=True, slots=True)
class Rise:
    """The distance of the newest evaluations from the lowest level."""

    evaluations: list[Evaluation]
    best: Evaluation
    """Last evaluation of the lowest level, with that level as its value."""
    level: float
    """Median of the newest evaluations; nan where the newest is not finite."""
    noise: float
    training_fell: bool

    @classmethod
    def of(cls, evaluations: list[Evaluation]) -> "Rise | None":
        """Compare the newest evaluations with the lowest level; None while there are too few."""
        newest = evaluations[-1]
        finite = [each for each in evaluations if math.isfinite(each.held_out)]
        if not math.isfinite(newest.held_out):
            best = finite[-1] if finite else replace(newest, held_out=0.0)
            return cls(evaluations, best, math.nan, 0.0, math.isfinite(newest.training))
        if len(finite) < MIN_EVALUATIONS:
            return None
        values = np.clip([each.held_out for each in finite], -MAX_VALUE, MAX_VALUE)
        training = np.array([each.training for each in finite])
        training[np.isnan(training)] = math.inf  # not known
        levels, trained = _medians(values), _medians(training)
        lowest = int(levels.argmin())
        best = replace(finite[lowest + NUM_JUDGED - 1], held_out=float(levels[lowest]))
        noise = 1.4826 * float(np.median(np.abs(np.diff(values[-NUM_FOR_NOISE:], n=2)))) / math.sqrt(6)
        fell = bool(trained[-1] < math.inf and trained[-1] <= trained[lowest])
        return cls(finite, best, float(levels[-1]), noise, fell)

    @property
    def threshold(self) -> float:
        """Smallest rise that is an incident, in units of the loss."""
        return max(DEVIATIONS * self.noise, RELATIVE_RISE * abs(self.best.held_out), 1e-9)

    def height_above(self, lowest: float) -> float:
        """Return the distance of the level from another one; infinite where the newest value is not finite."""
        return math.inf if math.isnan(self.level) else self.level - lowest

    @property
    def score(self) -> float:
        """Rise in thresholds; 0 where the training loss rose as well, because other incidents are about that."""
        if not self.training_fell:
            return 0.0
        return min(self.height_above(self.best.held_out) / self.threshold, 1e6)

    def incident(self) -> Incident:
        """Return a new warning, without its number."""
        newest, best = self.evaluations[-1], self.best
        above = [each for each in self.evaluations if each.step > best.step and not each.held_out <= best.held_out]
        onset = above[0].step if above else newest.step
        return Incident(
            number=0,
            kind=IncidentKind.HELD_OUT_RISE,
            state=IncidentState.WARNING,
            signal=HELD_OUT_LOSS,
            onset_step=onset,
            detected_step=newest.step,
            peak_step=newest.step,
            peak_value=newest.held_out,
            end_step=None,
            score=round(self.score, 3),
            expected=best.held_out,
            scale=self.noise,
            outcome=Outcome.ONGOING,
            reasons=[self._reason()],
        )

    def _reason(self) -> str:
        newest, best = self.evaluations[-1], self.best
        if math.isnan(self.level):
            return f"Step {newest.step}: the held-out loss is {newest.held_out}, while the training loss is finite."
        return (
            f"Step {newest.step}: the held-out loss is {self.level:.4g} (median of {NUM_JUDGED}); its lowest level was "
            f"{best.held_out:.4g} up to step {best.step}, and the training loss has not risen since. More training "
            "on this data may not help."
        )


def _medians(values: Floats) -> Floats:
    """Return the medians of each NUM_JUDGED = 3 neighbours, in order."""
    windows = np.stack((values[:-2], values[1:-1], values[2:]))
    middle: Floats = np.sort(windows, axis=0)[1]
    return middle
