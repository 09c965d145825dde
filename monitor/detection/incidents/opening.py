"""Opens an incident: its kind, and its onset, dated back to the first signal that left its band."""

import numpy as np

from lossguard.vocabulary.metrics import BY_NAME, MAX_SKIPPED, SKIP_WINDOW, is_advisory
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.incidents.open_incident import OpenIncident, Readings
from monitor.detection.scoring.baseline import FALL_Z
from monitor.detection.scoring.scored_rows import PRECURSOR_Z, RecentRows, SignalReading, describe, score_of

MAX_PRECURSOR_GAP = 3  # rows in band between two rows of a precursor
CAP = f"The optimizer skipped {MAX_SKIPPED} updates within {SKIP_WINDOW} steps, the first at step "
"""First words of the reason that the number of skipped updates has reached the cap."""


def open_incident(
    number: int,
    step: int,
    signal: str,
    readings: Readings,
    recent: RecentRows,
    source: SourceFacts,
    first_skipped: int | None = None,
) -> OpenIncident:
    """An incident at `step` because of `signal`. `first_skipped`: see `IncidentTracker.observe`."""
    reading = readings[signal]
    kind = kind_of(signal, reading)
    onset, reasons = onset_of(step, signal, kind, reading, recent)
    # what a row shows may have begun after the row before it: a rollback must not end in between
    onset = max(onset - source.uncertain_steps, 0)
    reasons += source.describe()
    if first_skipped is not None:
        onset = min(onset, first_skipped)
        reasons.append(describe_cap(first_skipped))
    expected = reading.reference if kind is IncidentKind.DIVERGENCE else reading.expected
    expected = expected if np.isfinite(expected) else 0.0
    peak = recent.peak_index(signal, onset, expected, down=kind is IncidentKind.LOSS_COLLAPSE)
    loss_moved = kind is IncidentKind.NONFINITE or (signal == "loss" and kind is not IncidentKind.LOSS_COLLAPSE)
    collapsed = kind is IncidentKind.LOSS_COLLAPSE
    incident = Incident(
        number=number,
        kind=kind,
        state=IncidentState.OPEN if loss_moved or collapsed else IncidentState.WARNING,
        signal=signal,
        onset_step=onset,
        detected_step=step,
        peak_step=int(recent.steps[peak]),
        peak_value=float(recent.values[signal][peak]),
        end_step=None,
        score=round(max(score_of(kind, reading), 1.0), 3),
        expected=expected,
        scale=reading.scale if np.isfinite(reading.scale) else 0.0,
        outcome=Outcome.ONGOING,
        reasons=reasons,
    )
    loss = readings.get("loss")
    wandering = max(reading.reference - expected, 0.0) if signal == "loss" else 0.0
    measured = signal == "loss" and not reading.non_finite
    excess = max(reading.value - expected - wandering, 0.0) if measured else 0.0
    opened = OpenIncident(
        incident,
        loss_moved=loss_moved,
        previous_loss=loss.value if loss is not None and np.isfinite(loss.value) else float("inf"),
        last_step_out_of_band=step,
        check_step=step,
        check_excess=excess,
        peak_excess=excess,
        excess=excess,
        non_finite=reading.non_finite,
        loss_non_finite=loss is not None and loss.non_finite,
        norm_first=norm_came_first(step, readings, recent),
        first_onset_step=onset,
        expectation_known=bool(np.isfinite(reading.expected)),
        sure=first_skipped is not None,
        wandering=wandering,
    )
    opened.note_alarms(readings)
    if measured:
        opened.note_excess()
    return opened


def kind_of(signal: str, reading: SignalReading) -> IncidentKind:
    if is_advisory(signal):
        return IncidentKind.EARLY_WARNING
    if reading.non_finite:
        return IncidentKind.NONFINITE
    if signal == "loss" and reading.evidence < 1.0:
        if reading.fall >= 1.0:
            return IncidentKind.LOSS_COLLAPSE
        if reading.drift >= 1.0:
            return IncidentKind.DIVERGENCE
    kind = BY_NAME[signal].incident_kind
    assert kind is not None
    return kind


def describe_cap(first_skipped: int) -> str:
    return f"{CAP}{first_skipped}: one such batch is no incident, so many are."


def onset_of(
    step: int, signal: str, kind: IncidentKind, reading: SignalReading, recent: RecentRows
) -> tuple[int, list[str]]:
    """(onset, the reasons so far): the first of the rows out of band, or of the precursor's before them."""
    if kind is IncidentKind.NONFINITE:
        onset, reason = step, f"Step {step}: {signal} is not finite."
    elif kind is IncidentKind.DIVERGENCE:
        onset = reading.rise_step
        reason = (
            f"Step {step}: the loss level has been rising since step {onset}, from {reading.reference:.5g}; "
            f"the rise is {reading.drift:.3g} times the alarm threshold."
        )
    elif kind is IncidentKind.LOSS_COLLAPSE:
        onset = recent.fall_step(signal, -FALL_Z)
        reason = (
            f"Step {step}: the loss fell from {reading.expected:.5g} to {reading.value:.5g} nats at step {onset}. No "
            "learning makes such a step: the data may be repeated or leak, or a mask or a normalisation may be wrong."
        )
    elif reading.non_finite:  # of an advisory signal
        onset, reason = step, f"Step {step}: {signal} is not finite."
    else:
        onset, reason = recent.onset_step(signal), f"Step {step}: {describe(signal, reading)}."
    reasons = [reason]
    for other in recent.z:
        precursor = recent.onset_step(other, PRECURSOR_Z, MAX_PRECURSOR_GAP) if other not in (signal, "loss") else onset
        if precursor < onset:
            onset = precursor
            reasons.append(f"{other} left its band first, at step {onset}.")
    return onset, reasons


def norm_came_first(step: int, readings: Readings, recent: RecentRows) -> bool:
    """True if the gradient norm left its band before the loss, which may still be in its own."""
    norm, loss = readings.get("grad_norm"), readings.get("loss")
    if norm is None:
        return False
    onset = recent.onset_step("grad_norm", PRECURSOR_Z, MAX_PRECURSOR_GAP)
    is_out = onset < step or norm.is_alarm() or norm.z >= PRECURSOR_Z
    loss_is_out = loss is not None and loss.is_out_of_band(IncidentKind.LOSS_SPIKE)
    return is_out and onset < (recent.onset_step("loss") if loss_is_out else step + 1)


def plateau(number: int, step: int, loss: SignalReading) -> Incident:
    """The advisory that the loss has not been lower for a long time: an incident that is over at once."""
    steps = step - loss.low_step
    reason = (
        f"The loss level has not fallen for {steps} steps: it was lowest at step {loss.low_step}, "
        f"and is {loss.expected:.5g} now."
    )
    return Incident(
        number=number,
        kind=IncidentKind.PLATEAU,
        state=IncidentState.CLOSED,
        signal="loss",
        onset_step=loss.low_step,
        detected_step=step,
        peak_step=step,
        peak_value=loss.value,
        end_step=step,
        score=1.0,
        expected=loss.expected,
        scale=loss.scale,
        outcome=Outcome.ONGOING,
        reasons=[reason],
    )
