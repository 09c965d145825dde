"""One incident that is open, followed row by row until it ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lossguard.vocabulary.metrics import is_advisory
from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident, IncidentEvent, advance
from monitor.detection.encoding import dump
from monitor.detection.incidents.recovery import SpikeShape, usual_rows
from monitor.detection.scoring.baseline import FALL_Z
from monitor.detection.scoring.scored_rows import IN_BAND_Z, PRECURSOR_Z, SignalReading, describe, deviation, score_of
from monitor.detection.settings import DetectionSettings

DIVERGENCE_ROWS = 5  # consecutive rows, out of band, on which the loss rises: no longer a spike
DIVERGED_FRACTION = 0.25  # a loss that stays higher by this fraction of what was expected has diverged
MAX_REMAINING_NOISES = 1.0  # what the mean excess of the calm rows may be for the signal to have recovered
MAX_MEAN_NOISES = 2.0  # what the mean excess of the last rows may be for nothing to be done about it
MEAN_ROWS = 12  # calm rows that the mean excess averages over
RECENT_ROWS = 4  # rows that the recent excess averages over
MIN_CHANGE = 0.05  # of the probability that an incident lasts, for it to be reported again
ADVISORY_STRIDE = 20  # rows between two measurements of an advisory signal, at most
QUIET_ROWS = 3  # rows without an alarm before another alarm is a new spike

Readings = Mapping[str, SignalReading]
Recoveries = Sequence[tuple[int, float]]
"""Rows and size of the spikes that recovered by themselves."""


@dataclass(slots=True)
class OpenIncident:
    """The incident as it stands, and what decides about its end and about the policy. Excess: nats above expected."""

    incident: Incident
    loss_moved: bool
    """The loss is or was out of band."""
    previous_loss: float
    last_step_out_of_band: int
    """The last step at which any signal was out of band."""
    check_step: int
    """First step of the present span of patience."""
    check_excess: float = 0.0
    """The excess there."""
    peak_excess: float = 0.0
    excess: float = 0.0
    spike_rows: int = 0
    """Rows since the loss left its band, with that row."""
    recent_excess: float = 0.0
    """Mean excess of the last RECENT_ROWS of these rows."""
    highest_excess: float = 0.0
    """The highest mean so far: a single row proves nothing."""
    mean_excess: float | None = None
    """Mean excess of the last MEAN_ROWS rows, negative if the loss lay below: one noisy row is no evidence."""
    wandering: float = 0.0
    """Distance of the usual level above the expected loss, which follows every wave of the level: the way back from
    an easy stretch of the data is no excess."""
    rising_rows: int = 0
    """Consecutive rows, up to this one, on which the loss rose while out of band."""
    falls: int = 0
    rises: int = 0
    calm_rows: int = 0
    """Rows in band since the last row out of band; a row counts only if it reports the incident's signal."""
    rows_without_signal: int = 0
    """Consecutive rows in band, up to this one, that do not report the incident's signal: they say nothing of it."""
    previous_calm_rows: int = 0
    """Consecutive rows in band before the last rows out of band."""
    remaining_excess: float = 0.0
    """The mean excess of the last calm rows."""
    rows_since_alarm: int = 0
    """Rows with the incident's signal since the last row whose evidence was an alarm."""
    non_finite: bool = False
    """A signal is not finite at this row."""
    loss_non_finite: bool = False
    """The loss was not finite at a row of the incident."""
    norm_first: bool = False
    """The gradient norm left its band before the loss did."""
    first_onset_step: int = 0
    """The onset that a rollback must lie before: that of the first of the incidents that led to this one."""
    expectation_known: bool = True
    """True if it is known what the signal was expected to be; without that there is no excess."""
    wait_reasons: list[str] = field(default_factory=list)
    """Reasons for the present decision to wait, and the one to add if the incident ends before another decision."""
    awaits_comparison: bool = False
    """The decision waits for the next row, until the trainer has compared the samples of this one."""
    no_further_action: bool = False
    """The policy has decided for good (observe mode, or an operator rejected or released)."""
    structural: bool = False
    """A slow rise whose cause is the recipe."""
    spiked: bool = False
    """The loss spiked: it is no slow rise."""
    sure: bool = True
    """The evidence is enough for an action, not for an incident alone."""
    alarmed_signals: list[str] = field(default_factory=list)
    """The signals that raised an alarm, in order."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults: many incidents have few."""
        defaults = {each.name: each.default for each in fields(self) if each.name != "first_onset_step"}
        return {name: value for name, value in dump(self).items() if name not in defaults or value != defaults[name]}

    def observe(self, step: int, readings: Readings) -> bool:
        """Take in the next row; True when the incident itself changed."""
        before = self.incident
        if before.kind is not IncidentKind.EARLY_WARNING:
            readings = without_advisory(readings)
        elif before.signal not in readings:  # it is measured every so many steps
            self.rows_without_signal += 1
            return False
        self.non_finite = any(reading.non_finite for name, reading in readings.items() if not is_advisory(name))
        out = any(reading.is_out_of_band(before.kind) for reading in readings.values())
        self.previous_calm_rows = self.calm_rows if out and self.calm_rows else self.previous_calm_rows
        is_reported = before.signal in readings
        self.calm_rows = 0 if out else self.calm_rows + is_reported
        self.rows_without_signal = 0 if out or is_reported else self.rows_without_signal + 1
        self.last_step_out_of_band = step if out else self.last_step_out_of_band
        loss = readings.get("loss")
        if loss is not None and np.isfinite(loss.value):
            self._observe_loss(step, loss)
        self.loss_non_finite |= loss is not None and loss.non_finite
        risen = loss is not None and before.kind is IncidentKind.DIVERGENCE and loss.drift >= 1.0
        if risen and step > before.detected_step:
            self.no_further_action = False
            reason = f"Step {step}: the loss has risen by as much again."
            self.incident = replace(self.incident, reasons=[*self.incident.reasons, reason])
        self.note_alarms(readings)
        alarm = any(reading.evidence >= 1.0 for reading in readings.values())
        self.rows_since_alarm = 0 if alarm else self.rows_since_alarm + is_reported
        self._update_peak(step, readings)
        return self.incident is not before

    def note_alarms(self, readings: Readings) -> None:
        """Remember which signals raise an alarm at this row, and what that makes of the incident."""
        known = self.alarmed_signals
        known += [name for name, each in readings.items() if each.is_alarm() and name not in known]
        self.spiked |= self.incident.kind is IncidentKind.LOSS_SPIKE
        self.sure |= any(each.is_sure() for name, each in readings.items() if name == "loss" or each.non_finite)

    def _observe_loss(self, step: int, loss: SignalReading) -> None:
        if not self.loss_moved and self.incident.kind is not IncidentKind.LOSS_COLLAPSE and loss.is_alarm():
            self.loss_moved = True
            reason = f"The loss left its band at step {step}: {describe('loss', loss)}."
            self._worsen(step, IncidentKind.LOSS_SPIKE, loss, reason)
        measured = self.expectation_known and self.incident.signal == "loss"
        present = loss.value - self.incident.expected - self.wandering
        self.excess = max(present, 0.0) if measured else 0.0
        if measured:
            before = present if self.mean_excess is None else self.mean_excess
            self.mean_excess = before + (present - before) / min(self.falls + self.rises + 1, MEAN_ROWS)
            self.note_excess()
        rose = loss.value > self.previous_loss
        self.rises, self.falls = self.rises + rose, self.falls + (not rose)
        is_high = loss.z >= IN_BAND_Z and (self.excess >= IN_BAND_Z * self.incident.scale or not measured)
        self.rising_rows = self.rising_rows + 1 if rose and is_high else 0
        if self.rising_rows == DIVERGENCE_ROWS and self.incident.kind is IncidentKind.LOSS_SPIKE:
            reason = f"The loss rose on {DIVERGENCE_ROWS} consecutive rows: this is a divergence, not a spike."
            self._worsen(step, IncidentKind.DIVERGENCE, loss, reason)
        self.previous_loss = loss.value
        if self.calm_rows:
            self.remaining_excess += (self.excess - self.remaining_excess) / min(self.calm_rows, MEAN_ROWS)
        if self.excess > self.peak_excess:
            self.peak_excess = self.excess
            self.check_step, self.check_excess = step, self.excess

    def note_excess(self) -> None:
        """Take the excess of this row into the shape of the spike."""
        self.spike_rows += 1
        self.recent_excess += (self.excess - self.recent_excess) / min(self.spike_rows, RECENT_ROWS)
        self.highest_excess = max(self.highest_excess, self.recent_excess)

    def shape(self, recoveries: Recoveries) -> SpikeShape | None:
        """The spike so far, beside those of the run that recovered; None where this is no spike of a finite loss."""
        if not self.spiked or not self.highest_excess > 0:
            return None
        gone = max(self.highest_excess - self.recent_excess - self.incident.scale, 0.0) / self.highest_excess
        return SpikeShape(self.spike_rows - 1, gone, usual_rows(recoveries, self.size))

    def lasting_probability(self, recoveries: Recoveries) -> float | None:
        """Return the probability that this does not recover by itself; None where too little is known."""
        if self.incident.kind is IncidentKind.NONFINITE or self.loss_non_finite:
            return 1.0
        shape = self.shape(recoveries)
        return None if shape is None else shape.lasting_probability()

    def note_probability(self, recoveries: Recoveries) -> bool:
        """Write the probability into the incident; True when it differs from what stands there."""
        if self.incident.state is IncidentState.TREATED:
            return False
        before, present = self.incident.lasting_probability, self.lasting_probability(recoveries)
        if before == present or (before is not None and present is not None and abs(before - present) < MIN_CHANGE):
            return False
        self.incident = replace(self.incident, lasting_probability=None if present is None else round(present, 2))
        return True

    def _worsen(self, step: int, kind: IncidentKind, loss: SignalReading, reason: str) -> None:
        """Make the incident one of the loss, of a more severe kind: so are its band, its peak and its score."""
        state = advance(self.incident.state, IncidentEvent.WORSEN)
        same = self.incident.signal == "loss"
        self.expectation_known = self.expectation_known if same else bool(np.isfinite(loss.expected))
        band = self.incident if same or not self.expectation_known else loss
        if not same:
            score = round(max(score_of(kind, loss), 1.0), 3)
            self.incident = replace(self.incident, peak_step=step, peak_value=loss.value, score=score)
        self.incident = replace(
            self.incident,
            kind=kind,
            state=state,
            signal="loss",
            expected=band.expected,
            scale=band.scale,
            reasons=[*self.incident.reasons, reason],
        )

    def _update_peak(self, step: int, readings: Readings) -> None:
        reading = readings.get(self.incident.signal)
        if reading is None:
            return
        incident, down = self.incident, self.incident.kind is IncidentKind.LOSS_COLLAPSE
        values = np.array([incident.peak_value, reading.value])
        peak, present = deviation(incident.signal, values, incident.expected, down=down)
        if present > peak:
            self.incident = replace(self.incident, peak_step=step, peak_value=reading.value)
        score = score_of(incident.kind, reading)
        if score > incident.score:
            self.incident = replace(self.incident, score=round(score, 3))

    def renew_patience(self, step: int, patience: int) -> None:
        """Begin the next span of patience when the excess has halved in the last one."""
        if step - self.check_step >= patience and self.excess <= 0.5 * self.check_excess:
            self.check_step, self.check_excess = step, self.excess

    def lasting_excess(self) -> float:
        """The excess, or 0 where the last rows are near the usual loss on average."""
        is_back = self.mean_excess is not None and self.mean_excess <= MAX_MEAN_NOISES * self.incident.scale
        return 0.0 if is_back else self.excess

    def escalation(self, readings: Readings) -> str | None:
        """Return why this row begins a more severe incident than the present one, or None."""
        kind, readings = self.incident.kind, without_advisory(readings)
        if kind is not IncidentKind.NONFINITE and any(reading.non_finite for reading in readings.values()):
            return "A signal became non-finite."
        loss = readings.get("loss")
        new_spike = loss is not None and loss.evidence >= 1.0 and self.rows_since_alarm >= QUIET_ROWS
        if kind is IncidentKind.DIVERGENCE and new_spike:
            return "The loss spiked during the divergence."
        if kind is IncidentKind.LOSS_COLLAPSE and new_spike:
            return "The loss rose above its band from before the collapse."
        return None

    def is_realarmed(self, readings: Readings, settings: DetectionSettings) -> bool:
        """A new incident begins although this one has not recovered in full: an alarm by a row that stands out."""
        readings = without_advisory(readings)
        signal = alarming_signal(readings)
        calm_rows = self.calm_rows or self.previous_calm_rows
        return calm_rows >= settings.calm_rows and signal is not None and readings[signal].z >= PRECURSOR_Z

    def is_over(self, settings: DetectionSettings) -> bool:
        """True if all is back in band in full, or in part for so long that this is the new normal.

        A row without the incident's signal ends it only if the signal has been missing for as long; for ADVISORY_STRIDE
        times as long if it is an early warning, whose signal may be measured now and then only.
        """
        if self.rows_without_signal:
            stride = ADVISORY_STRIDE if self.incident.kind is IncidentKind.EARLY_WARNING else 1
            return self.rows_without_signal >= settings.adopt_rows * stride
        recovered = self.remaining_excess <= MAX_REMAINING_NOISES * self.incident.scale
        return self.calm_rows >= settings.calm_rows and (recovered or self.calm_rows >= settings.adopt_rows)

    def outcome(self, readings: Readings) -> tuple[Outcome, str]:
        """Return the outcome when all signals are in band again: recovered, or the level became the new normal.

        Where the incident's signal is no longer reported, the incident ends as ongoing.
        """
        incident = self.incident
        if self.rows_without_signal:
            reason = f"The last {self.rows_without_signal} rows do not report {incident.signal}: its course is unknown."
            return Outcome.ONGOING, reason
        loss = readings.get("loss") if incident.signal == "loss" else None
        if loss is not None and incident.kind is IncidentKind.LOSS_COLLAPSE:
            return self._outcome_of_collapse(loss)
        if loss is None or not self.peak_excess > 0:
            return Outcome.RECOVERED, f"Back in band after step {self.last_step_out_of_band}."
        excess = loss.value - incident.expected - self.wandering
        if excess <= max(3 * incident.scale, 0.3 * self.peak_excess):
            return Outcome.RECOVERED, f"Back in band after step {self.last_step_out_of_band}: loss {loss.value:.4g}."
        diverged = excess > DIVERGED_FRACTION * max(abs(incident.expected), 1e-9)
        reason = f"The loss stayed {excess:.3g} nats above the expected value; its level is now the new baseline."
        return (Outcome.DIVERGED if diverged else Outcome.ONGOING), reason

    def _outcome_of_collapse(self, loss: SignalReading) -> tuple[Outcome, str]:
        fall = self.incident.expected - loss.value
        if fall <= FALL_Z * self.incident.scale:
            text = f"The loss is back at {loss.value:.4g} after step {self.last_step_out_of_band}."
            return Outcome.RECOVERED, f"{text} What it fell to was not learnt."
        return Outcome.ONGOING, f"The loss stayed {fall:.3g} nats below its level; the lower one is now the baseline."

    @property
    def size(self) -> float:
        """The largest excess, in noises."""
        return self.peak_excess / self.incident.scale if self.incident.scale > 0 else 0.0

    def recovery(self) -> tuple[int, float] | None:
        """The rows that a spike of the loss took to come back, and its size; None where this was no such spike."""
        if not self.spiked or self.loss_non_finite or not self.size > 0:
            return None
        return self.falls + self.rises - self.calm_rows, round(self.size, 2)

    def closed(self, outcome: Outcome, reason: str) -> Incident:
        """The incident as it ends. Raises IllegalTransition when it has ended already."""
        state, end_step = advance(self.incident.state, IncidentEvent.CLOSE), self.last_step_out_of_band
        reasons = [*self.incident.reasons, *self.wait_reasons[-1:], reason]
        return replace(self.incident, state=state, end_step=end_step, outcome=outcome, reasons=reasons)


def without_advisory(readings: Readings) -> Readings:
    """The readings of the signals that an incident may be about which a policy answers."""
    return {name: reading for name, reading in readings.items() if not is_advisory(name)}


def alarming_signal(readings: Readings) -> str | None:
    """The signal that makes this row an alarm: non-finite before loss before precursors before advisory signals."""
    non_finite = [name for name, reading in without_advisory(readings).items() if reading.non_finite]
    alarms = [name for name, reading in readings.items() if reading.is_alarm() and not is_advisory(name)]
    warnings = [name for name, reading in readings.items() if is_advisory(name) and reading.is_warning()]
    return next(iter([*non_finite, *[name for name in alarms if name == "loss"], *alarms, *warnings]), None)


def closed_incident(incident: Incident, step: int, outcome: Outcome, reason: str) -> Incident:
    """The incident as it ends at `step`. Raises IllegalTransition when it has ended already."""
    state, end = advance(incident.state, IncidentEvent.CLOSE), max(step, incident.onset_step)
    return replace(incident, state=state, end_step=end, outcome=outcome, reasons=[*incident.reasons, reason])
