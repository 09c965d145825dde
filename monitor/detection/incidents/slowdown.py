"""The incident of a run that has become slow: what it says, in tokens per second or in seconds per step."""

import math

from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.throughput.pace import Change, Finding, SlowdownCause

END_REASONS = {
    Change.RECOVERED: "The run is as fast as before.",
    Change.ADOPTED: "The run has stayed at this speed for so long that it counts as normal from now on.",
    Change.DECLARED: "A change was declared: the normal speed is learnt anew.",
}


def slowdown(number: int, finding: Finding) -> Incident:
    """An open incident; nothing is ordered for it."""
    usual, value, noise = in_unit(finding)
    return Incident(
        number=number,
        kind=IncidentKind.SLOWDOWN,
        state=IncidentState.OPEN,
        signal=signal_of(finding),
        onset_step=finding.onset_step,
        detected_step=finding.timing.last_step,
        peak_step=finding.timing.last_step,
        peak_value=value,
        end_step=None,
        score=round(finding.score, 3),
        expected=usual,
        scale=noise,
        outcome=Outcome.ONGOING,
        reasons=[_what(finding), *_waiting(finding)],
    )


def signal_of(finding: Finding) -> str:
    """The metric that the values of the incident are in."""
    if finding.cause is SlowdownCause.WAITING:
        return "data_seconds"
    return "throughput" if finding.timing.counts_tokens else "step_seconds"


def in_unit(finding: Finding) -> tuple[float, float, float]:
    """(usual, now, standard deviation) in the unit of the signal; a share of the time for `data_seconds`."""
    usual, value, noise = finding.usual, finding.value, finding.noise
    if signal_of(finding) == "throughput" and usual > 0 and value > 0:
        return 1 / usual, 1 / value, noise / usual**2
    return usual, value, noise


def _what(finding: Finding) -> str:
    steps = f"since step {finding.onset_step}"
    usual, value, _ = in_unit(finding)
    if finding.cause is SlowdownCause.WAITING:
        return f"The loop waits for data in {value:.0%} of the time {steps}; usual were {usual:.0%}."
    times = finding.value / finding.usual if finding.usual > 0 else math.inf
    per = "token" if finding.timing.counts_tokens else "step"
    now = f"{value:.4g} tokens per second instead of {usual:.4g}"
    if per == "step":
        now = f"{value:.3g} s per step instead of {usual:.3g} s"
    how = "has become" if finding.cause is SlowdownCause.SUDDEN else "has slowly become"
    return f"The time per {per} {how} {times:.2f} times as long {steps}: {now}. Single slow steps are not counted."


def _waiting(finding: Finding) -> list[str]:
    """Say whether the data are to blame, if the loop reports how long it waits for them."""
    now, usual = finding.timing.waiting, finding.usual_waiting
    if finding.cause is SlowdownCause.WAITING or now is None or usual is None:
        return []
    return [f"The loop waits for data in {now:.0%} of the time; usual were {usual:.0%}."]
