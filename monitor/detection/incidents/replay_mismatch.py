"""The incident of recomputed steps that differ from their record: what it says, and what the difference looks like."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lossguard.vocabulary.protocol import is_step
from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.scoring.recomputed_steps import MAX_SCORE, RELATIVE_TOLERANCE, SLACK, ReplayVerdict
from monitor.detection.scoring.replay_comparison import RateDifference
from monitor.detection.scoring.skip_effect import RepeatedSamples

SAME_BATCHES = 0.8
"""Correlation between recorded and recomputed losses from which on the batches are the same."""
MIN_SHIFT = 3.0
"""Mean difference in standard deviations that is a shift of all losses, whatever the batches."""
MIN_ROWS = 4
"""Rows from which on a correlation says anything."""


MENDING = "let guard.steps(..) read the batches, from the DataLoader or from lossguard.torch.Drawn(get_batch)"
NO_SKIPS = f"The data of this run does not repeat, so no batch is skipped from now on. To mend it, {MENDING}."
SKIPS_NO_MORE = f"this run skips no more; {MENDING}"


@dataclass(frozen=True, slots=True)
class OtherSamples:
    """The trainer has seen that a batch came with other samples when it was read again."""

    step: int
    batch_index: int | None = None

    @property
    def restored_step(self) -> int:
        """First step of those computed otherwise than before."""
        return self.step

    @classmethod
    def from_details(cls, step: int, details: Mapping[str, Any]) -> Self:
        """Read the finding from the details of an event DATA_NOT_REPEATED at `step`."""
        given: list[Any] = [details.get(name) for name in ("step", "batch_index")]
        at, batch = (value if is_step(value) else None for value in given)
        return cls(step if at is None else at, batch)


Finding = ReplayVerdict | RepeatedSamples | OtherSamples
"""Result of recomputed steps, or of the trainer's own comparison of samples."""


def replay_mismatch(number: int, finding: Finding) -> Incident:
    """An open incident: it needs a person."""
    return Incident(
        number=number,
        kind=IncidentKind.REPLAY_MISMATCH,
        state=IncidentState.OPEN,
        end_step=None,
        outcome=Outcome.ONGOING,
        reasons=describe_mismatch(finding),
        **_facts(finding),
    )


def _facts(finding: Finding) -> dict[str, Any]:
    match finding:
        case OtherSamples(step, batch):
            values = {"peak_value": float(batch or step), "expected": float(batch or step), "scale": 0.0, "score": 1.0}
            return {"signal": "batch_index", **_steps(step, step, step), **values}
        case RepeatedSamples():
            values = {"peak_value": finding.loss, "expected": finding.loss, "scale": 0.0, "score": 1.0}
            return {"signal": "loss", **_steps(finding.first_step, finding.last_step, finding.first_step), **values}
        case ReplayVerdict(rate=RateDifference(step, recorded, found) as rate):
            values = {"peak_value": found, "expected": recorded, "scale": 0.0}
            score = round(min(rate.score(), MAX_SCORE), 3)
            return {"signal": "lr", **_steps(step, step, step), **values, "score": score}
    worst = int(np.argmax(finding.scores()))
    steps = _steps(int(finding.steps[finding.beyond()][0]), int(finding.steps[-1]), int(finding.steps[worst]))
    values = {"peak_value": float(finding.recomputed[worst]), "expected": float(finding.recorded[worst])}
    return {"signal": "loss", **steps, **values, "scale": finding.noise, "score": round(finding.score(), 3)}


def _steps(onset: int, detected: int, peak: int) -> dict[str, int]:
    return {"onset_step": onset, "detected_step": detected, "peak_step": peak}


def describe_mismatch(finding: Finding) -> list[str]:
    """Describe the difference, its size and limit, and its likely cause or cure."""
    return [sentence for part in _parts(finding) for sentence in part]


def notice_of(finding: Finding) -> str:
    """Return the difference and its cure in one line; empty for a finding that the trainer reported itself."""
    match finding:
        case OtherSamples():
            return ""
        case RepeatedSamples(skip_from=first, skip_to=end):
            return f"batches {first} to {end - 1} were skipped, but their samples came again: {SKIPS_NO_MORE}"
    parts = []
    if finding.rate is not None:
        rate = finding.rate
        parts.append(
            f"step {rate.step} was computed again with the learning rate {rate.found:.4g} instead of "
            f"{rate.recorded:.4g}: give the scheduler to Checkpoints(.., scheduler=scheduler)"
        )
    if ends_skips(finding):
        parts.append(f"steps from {finding.restored_step} on were computed again with other batches: {SKIPS_NO_MORE}")
    elif finding.has_other_losses():
        first = int(finding.steps[finding.beyond()][0])
        parts.append(f"steps from {first} on were computed again with other losses than recorded: see the incident")
    return "; ".join(parts)


def ends_skips(finding: Finding) -> bool:
    """True if it shows that no skip can leave samples out: a batch index does not stand for the same samples again."""
    return not isinstance(finding, ReplayVerdict) or (finding.has_other_losses() and _has_other_batches(finding))


def _parts(finding: Finding) -> list[list[str]]:
    """Return the parts of the finding, each with its sentences."""
    match finding:
        case OtherSamples(step, batch):
            which = "A batch" if batch is None else f"Batch {batch}"
            what = f"{which} came with other samples at step {step} than before: the trainer compared them."
            return [[what, NO_SKIPS]]
        case RepeatedSamples():
            what = (
                f"The rollback to step {finding.restored_step} skipped batches {finding.skip_from} to "
                f"{finding.skip_to - 1}, but steps {finding.first_step} to {finding.last_step} gave the losses that "
                f"are recorded with these batches ({finding.loss:.6g} at step {finding.first_step}): the loop drew the "
                "skipped samples again."
            )
            return [[what, NO_SKIPS]]
    rate = [] if finding.rate is None else [_describe_rate(finding.restored_step, finding.rate)]
    return [*rate, _describe_losses(finding)] if finding.has_other_losses() else rate


def _describe_rate(restored_step: int, rate: RateDifference) -> list[str]:
    return [
        f"After the restore to step {restored_step}, step {rate.step} was computed again with the learning rate "
        f"{rate.found:.6g}; {rate.recorded:.6g} is recorded.",
        "No order changed the learning rate, and no change of it was declared.",
        "Give the scheduler to Checkpoints(.., scheduler=scheduler), so that it is restored too. If the change is "
        'intended, announce it: run.declare("learning_rate").',
    ]


def _describe_losses(verdict: ReplayVerdict) -> list[str]:
    worst, num = int(np.argmax(verdict.scores())), len(verdict.steps)
    now = f"{verdict.recomputed[worst]:.6g}" if np.isfinite(verdict.recomputed[worst]) else "not finite"
    what = (
        f"After the restore to step {verdict.restored_step}, {np.count_nonzero(verdict.beyond())} of the first {num} "
        f"recomputed steps differ from their recorded losses: at step {verdict.steps[worst]} the loss was "
        f"{verdict.recorded[worst]:.6g} and is now {now}, with the same batch index."
    )
    return [what, _tolerance(verdict, worst), _likeness(verdict)]


def _tolerance(verdict: ReplayVerdict, worst: int) -> str:
    tolerated = f"Up to {verdict.tolerances[worst]:.2g} nats were tolerated there"
    floor = f"{RELATIVE_TOLERANCE:g} of the loss" + (
        " for each compared row before it" if verdict.is_generous() else ""
    )
    if not verdict.num_replays:
        return f"{tolerated}: {floor}, because no earlier replay of this run was measured."
    largest = f"{SLACK:g} times the largest difference of {verdict.num_replays} earlier replays"
    return f"{tolerated}: {largest}, and at least {floor}."


def _likeness(verdict: ReplayVerdict) -> str:
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
    other = (
        f"{start}, and the losses do not follow the recorded ones: it looks like other batches under the same index."
    )
    return f"{other} {NO_SKIPS}"


def _has_other_batches(verdict: ReplayVerdict) -> bool:
    """True if the first step differs, and the losses look like those of other batches."""
    is_known = np.isfinite(verdict.differences()).all() and verdict.steps[0] == verdict.restored_step
    enough = len(verdict.steps) >= MIN_ROWS
    return bool(is_known and enough and verdict.beyond()[0] and not _has_same_batches(verdict))


def _has_same_batches(verdict: ReplayVerdict) -> bool:
    differences = verdict.differences()
    if abs(differences.mean()) >= MIN_SHIFT * differences.std():
        return True
    if not (verdict.recorded.std() > 0 and verdict.recomputed.std() > 0):
        return False
    return bool(np.corrcoef(verdict.recorded, verdict.recomputed)[0, 1] >= SAME_BATCHES)


def describe_match(verdict: ReplayVerdict) -> str:
    """One sentence about a replay that agrees with its record."""
    agreeing = ~verdict.beyond()
    largest = float(np.abs(verdict.differences()[agreeing]).max())
    agreement = "are equal to their record" if largest == 0 else f"agree with their record to {largest:.2g} nats"
    first, num = f"first {len(verdict.steps)} recomputed steps, from step {verdict.steps[0]},", np.sum(agreeing)
    return f"The {first} {agreement}." if agreeing.all() else f"{num} of the {first} {agreement}."
