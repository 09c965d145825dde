"""One checkpoint of a run, trained again in four arms: {the same, an earlier} state x {the same, other} batches."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from lossguard import Cause
from trainer.errors import UsageError
from trainer.replay.incident import ReplayedIncident
from trainer.replay.record import RecordedStep, RunRecord
from trainer.replay.reference import NEIGHBOURS, Reference, calibrate, finite_values, first_divergence, loss_difference
from trainer.replay.rerun import Rerun
from trainer.replay.verdict import Arm, ReplayVerdict, cause_of, describe

STEPS_AFTER_DETECTION = 10
"""Replayed, too: with other batches the anomaly may come a little later."""
MIN_EARLIER_STEPS = 50
"""Distance of the earlier state from the same state, if there is such a checkpoint."""
MAX_TRIES = 3
"""Checkpoints that are tried for either state."""
MIN_NORMAL_STEPS = 8
"""Needed to calibrate a tolerance."""
MIN_SHARE = 0.25
"""Share of the recorded excess below which a replay does not reproduce the incident, even if it is not normal."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierState:
    """A checkpoint from which the run continued normally, or the lack of one."""

    step: int | None
    """None: no such checkpoint is left."""
    batches: Sequence[int]
    """Batches of this state, as many as are replayed."""
    steps: Sequence[RecordedStep] = ()
    """Recorded steps of this state with these batches."""
    repeat_error: float = 0.0
    """The largest loss difference from the record, in nats."""


class Experiment:
    """A replay from one checkpoint."""

    def __init__(self, incident: ReplayedIncident, rerun: Rerun, state: int, report: Report) -> None:
        """Choose the earlier state and calibrate the reference. Raises UsageError without enough normal steps.

        `state`: step of the checkpoint.
        """
        onset, record = incident.onset, rerun.record
        normal = finite_values(record.steps, range(onset - 1 - 2 * NEIGHBOURS, onset), "loss")
        if len(normal) < MIN_NORMAL_STEPS:
            raise UsageError(
                f"Only {len(normal)} of the {2 * NEIGHBOURS + 1} steps before step {onset} are recorded and finite: "
                f"a replay needs {MIN_NORMAL_STEPS} normal steps before the incident."
            )
        self.rerun, self.report, self.state = rerun, report, state
        steps = range(state, incident.detected + STEPS_AFTER_DETECTION + 1)
        self.last = max(step for step in steps if step in record.steps)
        """Last step that is replayed."""
        self.recorded = record.between(state, self.last + 1)
        """The recorded steps that are replayed."""
        self.earlier = _find_earlier(rerun, state, self.last)
        first = min(onset - 2 * MIN_EARLIER_STEPS, onset if self.earlier.step is None else self.earlier.step)
        first = max(min(record.steps), first)
        self.reference, self.excess = _choose_reference(incident, record, first, self.last, self.earlier.repeat_error)
        """`excess`: that of the recorded incident, in the unit of the signal."""

    def run(self) -> ReplayVerdict:
        """Run the arms and decide."""
        tolerance = self.reference.tolerance
        verdict = ReplayVerdict(
            cause=Cause.UNDETERMINED,
            sentence="Undetermined: the recorded anomaly is too small to judge. "
            f"It is {self.excess:.3g} away from the expected value, and normal steps are up to {tolerance:.3g} away.",
            signal=self.reference.signal,
            first=self.state,
            last=self.last,
            recorded=self.recorded,
            repeat_error=self.earlier.repeat_error,
        )
        if self.excess <= tolerance:
            return verdict
        same, earlier = batches_of(self.recorded), self.earlier
        arms = [
            self._arm("same", "same", self.state, self.rerun.train(self.state, same)),
            self._arm("same", "other", self.state, self.rerun.train(self.state, earlier.batches)),
        ]
        if earlier.step is not None:
            arms.append(self._arm("earlier", "same", earlier.step, self.rerun.train(earlier.step, same)))
            arms.append(self._arm("earlier", "other", earlier.step, earlier.steps))
        cause = cause_of([arm.reproduced for arm in arms])
        position = first_divergence(self.recorded, arms[0].steps, earlier.repeat_error)
        departed_at = None if position is None else self.state + position
        sentence = describe(cause, arms, state=self.state, earlier=earlier.step, departed_at=departed_at)
        return replace(verdict, cause=cause, sentence=sentence, arms=arms, departed_at=departed_at)

    def begins_before(self, older: int) -> bool:
        """Return True if the run reproduces the incident when it is trained again from an older checkpoint."""
        reproduced = self.reproduces(older, batches_of(self.rerun.record.between(older, self.last + 1)))
        self.report(f"the run from step {older} on {_verb(reproduced)} the incident")
        return reproduced

    def reproduces(self, state: int, batches: Sequence[int]) -> bool:
        """Return True if training the state of this step on `batches` leads to an anomaly."""
        steps = self.rerun.train(state, batches, self.reference.is_anomaly)
        return self.reference.is_anomaly(state + len(steps) - 1, steps[-1])

    def _arm(self, state: str, batches: str, step: int, steps: Sequence[RecordedStep]) -> Arm:
        position, excess = self.reference.worst(step, steps)
        reproduced = not excess <= self.reference.tolerance
        self.report(f"the state of step {step} with {batches} batches {_verb(reproduced)} the incident")
        return Arm(
            state=state,
            batches=batches,
            checkpoint=step,
            reproduced=reproduced,
            worst=steps[position].value(self.reference.signal) if math.isfinite(excess) else math.nan,
            expected=self.reference.expected(step + position),
            tolerance=self.reference.tolerance,
            steps=steps,
        )


def _verb(reproduced: bool) -> str:
    return "reproduces" if reproduced else "does not reproduce"


def batches_of(steps: Iterable[RecordedStep]) -> list[int]:
    return [step.batch for step in steps]


def _find_earlier(rerun: Rerun, state: int, last: int) -> EarlierState:
    """The first earlier state that repeats its own next batches with finite values.

    Of the checkpoints before the state, the newest that is far enough away comes first, then earlier ones.
    """
    record, length = rerun.record, last + 1 - state
    before = sorted((step for step in record.checkpoints if step < state), reverse=True)
    far = [step for step in before if step <= state - MIN_EARLIER_STEPS]
    for step in (far or before[-1:])[:MAX_TRIES]:
        recorded = record.between(step, min(step + length, state))
        batches = list(islice(cycle(batches_of(recorded)), length))
        replayed = rerun.train(step, batches)
        error = max(map(loss_difference, recorded, replayed))
        if math.isfinite(error):
            return EarlierState(step=step, batches=batches, steps=replayed, repeat_error=error)
    others = record.between(max(min(record.steps), state - length), state) or record.between(state, last + 1)
    return EarlierState(step=None, batches=list(islice(cycle(batches_of(others)), length)))


def _choose_reference(
    incident: ReplayedIncident, record: RunRecord, first: int, last: int, repeat_error: float
) -> tuple[Reference, float]:
    """A reference by the loss if it shows the incident, else by the incident's signal; and the recorded excess."""
    for signal in dict.fromkeys(("loss", incident.signal)):
        reference = calibrate(record.steps, first=first, onset=incident.onset, signal=signal, repeat_error=repeat_error)
        excesses = [reference.excess(step, record.steps[step]) for step in range(incident.onset, last + 1)]
        if max(excesses) > reference.tolerance:
            largest = max(filter(math.isfinite, excesses), default=0.0)
            return replace(reference, tolerance=max(reference.tolerance, MIN_SHARE * largest)), max(excesses)
    return reference, max(excesses)
