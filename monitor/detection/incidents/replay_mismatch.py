"""The incident of recomputed steps that differ from their record: what it says, and what the difference looks like."""

import numpy as np

from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.scoring.recomputed_steps import MAX_SCORE, RELATIVE_TOLERANCE, SLACK, Verdict
from monitor.detection.scoring.replay_comparison import RateDifference

SAME_BATCHES = 0.8
"""Correlation between recorded and recomputed losses from which on the batches are the same."""
MIN_SHIFT = 3.0
"""A mean difference of so many of their standard deviations is a shift of all losses, whatever the batches."""
MIN_ROWS = 4
"""Rows from which on a correlation says anything."""


def replay_mismatch(number: int, verdict: Verdict) -> Incident:
    """An open incident: it needs a person."""
    if verdict.rate is not None:
        return _of_rate(number, verdict, verdict.rate)
    worst = int(np.argmax(verdict.scores()))
    return Incident(
        number=number,
        kind=IncidentKind.REPLAY_MISMATCH,
        state=IncidentState.OPEN,
        signal="loss",
        onset_step=int(verdict.steps[verdict.beyond()][0]),
        detected_step=int(verdict.steps[-1]),
        peak_step=int(verdict.steps[worst]),
        peak_value=float(verdict.recomputed[worst]),
        end_step=None,
        score=round(verdict.score(), 3),
        expected=float(verdict.recorded[worst]),
        scale=verdict.noise,
        outcome=Outcome.ONGOING,
        reasons=describe_mismatch(verdict),
    )


def _of_rate(number: int, verdict: Verdict, rate: RateDifference) -> Incident:
    return Incident(
        number=number,
        kind=IncidentKind.REPLAY_MISMATCH,
        state=IncidentState.OPEN,
        signal="lr",
        onset_step=rate.step,
        detected_step=rate.step,
        peak_step=rate.step,
        peak_value=rate.found,
        end_step=None,
        score=round(min(rate.score(), MAX_SCORE), 3),
        expected=rate.recorded,
        scale=0.0,
        outcome=Outcome.ONGOING,
        reasons=describe_mismatch(verdict),
    )


def describe_mismatch(verdict: Verdict) -> list[str]:
    """What differs and by how much, why that is too much, and what it looks like."""
    reasons = [] if verdict.rate is None else _describe_rate(verdict.restored_step, verdict.rate)
    return reasons + _describe_losses(verdict) if verdict.has_other_losses() else reasons


def _describe_rate(restored_step: int, rate: RateDifference) -> list[str]:
    return [
        f"After the restore to step {restored_step}, step {rate.step} was computed again with the learning rate "
        f"{rate.found:.6g}; {rate.recorded:.6g} is recorded.",
        "No order changed the learning rate, and no change of it was declared.",
        "Give the scheduler to Checkpoints(.., scheduler=scheduler), so that it is restored too. If the change is "
        'intended, announce it: run.declare("learning_rate").',
    ]


def _describe_losses(verdict: Verdict) -> list[str]:
    worst, num = int(np.argmax(verdict.scores())), len(verdict.steps)
    what = (
        f"After the restore to step {verdict.restored_step}, {np.count_nonzero(verdict.beyond())} of the first {num} "
        f"recomputed steps differ from their recorded losses: at step {verdict.steps[worst]} the loss was "
        f"{verdict.recorded[worst]:.6g} and is now {_value(verdict.recomputed[worst])}, with the same batch index."
    )
    return [what, _tolerance(verdict, worst), _likeness(verdict)]


def _value(loss: float) -> str:
    return f"{loss:.6g}" if np.isfinite(loss) else "not finite"


def _tolerance(verdict: Verdict, worst: int) -> str:
    tolerated = f"Up to {verdict.tolerances[worst]:.2g} nats were tolerated there"
    floor = f"{RELATIVE_TOLERANCE:g} of the loss" + (
        " for each compared row before it" if verdict.is_generous() else ""
    )
    if not verdict.num_replays:
        return f"{tolerated}: {floor}, because no earlier replay of this run was measured."
    largest = f"{SLACK:g} times the largest difference of {verdict.num_replays} earlier replays"
    return f"{tolerated}: {largest}, and at least {floor}."


def _likeness(verdict: Verdict) -> str:
    differences = verdict.differences()
    if not np.isfinite(differences).all():
        return "The recomputed loss is not finite: a computation went wrong, or the restored state is damaged."
    if verdict.steps[0] != verdict.restored_step:
        return "The restored state, the order of the data or a computation is not what it was."
    if not verdict.beyond()[0]:
        return (
            f"Step {verdict.restored_step} itself agrees, so weights and batch are right; the difference begins with "
            "the first updates: it looks like optimizer state that was not restored, or a computation that went wrong."
        )
    start = f"Already step {verdict.restored_step}, before any update, differs"
    if len(differences) < MIN_ROWS:
        return f"{start}: the weights, the batches or the random numbers are not what they were."
    if _has_same_batches(verdict):
        return (
            f"{start}, and the losses rise and fall with the recorded ones: it looks like the same batches with other "
            "weights, or with other random numbers (dropout)."
        )
    return f"{start}, and the losses do not follow the recorded ones: it looks like other batches under the same index."


def _has_same_batches(verdict: Verdict) -> bool:
    differences = verdict.differences()
    if abs(differences.mean()) >= MIN_SHIFT * differences.std():
        return True
    if not (verdict.recorded.std() > 0 and verdict.recomputed.std() > 0):
        return False
    return bool(np.corrcoef(verdict.recorded, verdict.recomputed)[0, 1] >= SAME_BATCHES)


def describe_match(verdict: Verdict) -> str:
    """One sentence about a replay that agrees with its record."""
    agreeing = ~verdict.beyond()
    largest = float(np.abs(verdict.differences()[agreeing]).max())
    agreement = "are equal to their record" if largest == 0 else f"agree with their record to {largest:.2g} nats"
    first, num = f"first {len(verdict.steps)} recomputed steps, from step {verdict.steps[0]},", np.sum(agreeing)
    return f"The {first} {agreement}." if agreeing.all() else f"{num} of the {first} {agreement}."
