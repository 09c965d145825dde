"""The incident of recomputed steps that differ from their record: what it says, and what the difference looks like."""

import numpy as np

from lossguard.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.scoring.recomputed_steps import RELATIVE_TOLERANCE, SLACK, Verdict

ONE_SIDED = 0.8
"""Differences are one-sided if their sum is at least this fraction of the sum of their magnitudes."""


def replay_mismatch(number: int, verdict: Verdict) -> Incident:
    """An open incident: it needs a person."""
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


def describe_mismatch(verdict: Verdict) -> list[str]:
    """What differs and by how much, why that is too much, and what it looks like."""
    worst, num = int(np.argmax(verdict.scores())), len(verdict.steps)
    what = (
        f"After the restore to step {verdict.restored_step}, {np.count_nonzero(verdict.beyond())} of the first {num} "
        f"recomputed steps differ from their recorded losses: at step {verdict.steps[worst]} the loss was "
        f"{verdict.recorded[worst]:.6g} and is now {verdict.recomputed[worst]:.6g}, with the same batch index."
    )
    return [what, _tolerance(verdict, worst), _likeness(verdict)]


def _tolerance(verdict: Verdict, worst: int) -> str:
    tolerated = f"Up to {verdict.tolerances[worst]:.2g} nats were tolerated there"
    if not verdict.num_replays:
        return f"{tolerated}: {RELATIVE_TOLERANCE:g} of the loss for each update, as this is the first replay measured."
    return (
        f"{tolerated}: {SLACK:g} times the largest difference of {verdict.num_replays} earlier replays, "
        f"and at least {RELATIVE_TOLERANCE:g} of the loss."
    )


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
    if abs(differences.sum()) >= ONE_SIDED * np.abs(differences).sum():
        direction = "higher" if differences.sum() > 0 else "lower"
        return (
            f"Already step {verdict.restored_step}, before any update, differs, and the loss is {direction} throughout:"
            " it looks like other weights than those of that step."
        )
    return (
        f"Already step {verdict.restored_step}, before any update, differs, and the differences have both signs: it "
        "looks like other batches under the same index, or other random numbers (dropout)."
    )


def describe_match(verdict: Verdict) -> str:
    """One sentence about a replay that agrees with its record."""
    agreeing = ~verdict.beyond()
    largest = float(np.abs(verdict.differences()[agreeing]).max())
    agreement = "are equal to their record" if largest == 0 else f"agree with their record to {largest:.2g} nats"
    first, num = f"first {len(verdict.steps)} recomputed steps, from step {verdict.steps[0]},", np.sum(agreeing)
    return f"The {first} {agreement}." if agreeing.all() else f"{num} of the {first} {agreement}."
