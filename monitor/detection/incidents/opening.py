"""How an incident begins: its kind, and its onset, dated back to the first signal that left its band."""

import numpy as np

from lossguard.metrics import BY_NAME
from lossguard.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.incidents.open_incident import OpenIncident, Readings
from monitor.detection.scoring.readings import PRECURSOR_Z, SignalReading, describe
from monitor.detection.scoring.recent_rows import RecentRows

MAX_PRECURSOR_GAP = 3  # rows in band between two rows of a precursor


def open_incident(number: int, step: int, signal: str, readings: Readings, recent: RecentRows) -> OpenIncident:
    """An incident at `step` because of `signal`."""
    reading = readings[signal]
    kind = kind_of(signal, reading)
    onset, reasons = onset_of(step, signal, kind, reading, recent)
    expected = reading.expected if np.isfinite(reading.expected) else 0.0
    peak = recent.peak_index(signal, onset, expected)
    loss_moved = kind is IncidentKind.NONFINITE or signal == "loss"
    incident = Incident(
        number=number,
        kind=kind,
        state=IncidentState.OPEN if loss_moved else IncidentState.WARNING,
        signal=signal,
        onset_step=onset,
        detected_step=step,
        peak_step=int(recent.steps[peak]),
        peak_value=float(recent.values[signal][peak]),
        end_step=None,
        score=round(max(reading.evidence, reading.drift, 1.0), 3),
        expected=expected,
        scale=reading.scale if np.isfinite(reading.scale) else 0.0,
        outcome=Outcome.ONGOING,
        reasons=reasons,
    )
    loss = readings.get("loss")
    excess = max(reading.value - expected, 0.0) if signal == "loss" and not reading.non_finite else 0.0
    return OpenIncident(
        incident,
        loss_moved=loss_moved,
        previous_loss=loss.value if loss is not None and np.isfinite(loss.value) else float("inf"),
        last_step_out_of_band=step,
        check_step=step,
        check_excess=excess,
        peak_excess=excess,
        excess=excess,
        non_finite=reading.non_finite,
        first_onset_step=onset,
        expectation_known=bool(np.isfinite(reading.expected)),
    )


def kind_of(signal: str, reading: SignalReading) -> IncidentKind:
    if reading.non_finite:
        return IncidentKind.NONFINITE
    if signal == "loss" and reading.evidence < 1.0 <= reading.drift:
        return IncidentKind.DIVERGENCE
    kind = BY_NAME[signal].incident_kind
    assert kind is not None
    return kind


def onset_of(
    step: int, signal: str, kind: IncidentKind, reading: SignalReading, recent: RecentRows
) -> tuple[int, list[str]]:
    """(onset, the reasons so far): the first of the rows out of band, or of the precursor's before them."""
    if kind is IncidentKind.NONFINITE:
        onset, reason = step, f"Step {step}: {signal} is not finite."
    elif kind is IncidentKind.DIVERGENCE:
        onset = reading.rise_step
        drift = f"the drift is {reading.drift:.3g} times the alarm threshold"
        reason = f"Step {step}: the loss level has been rising since step {onset}; {drift}."
    else:
        onset, reason = recent.onset_step(signal), f"Step {step}: {describe(signal, reading)}."
    reasons = [reason]
    for other in recent.z:
        precursor = recent.onset_step(other, PRECURSOR_Z, MAX_PRECURSOR_GAP) if other not in (signal, "loss") else onset
        if precursor < onset:
            onset = precursor
            reasons.append(f"{other} left its band first, at step {onset}.")
    return onset, reasons


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
