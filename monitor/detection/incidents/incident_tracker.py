"""An episode: one open incident, followed row by row from its onset to its end."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lossguard.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident
from monitor.detection.encoding import number, plain
from monitor.detection.incidents.states import IncidentEvent, advance
from monitor.detection.scoring.readings import CALM_Z, PRECURSOR_Z, Reading, Trail, away, describe, onset_step
from monitor.detection.settings import DetectionSettings

GRADUAL = 5  # rows on which the loss rises without a break, out of band: not a spike any more
FAR = 0.25  # a loss that stays higher by this part of itself has diverged
LINGERS = 1.0  # noises by which the mean of the calm rows may lie above what was expected, to be back
LATELY = 12  # calm rows that the mean remembers


@dataclass(slots=True)
class IncidentTracker:
    """An open incident and what its course so far says."""

    incident: Incident
    moved: bool
    """The loss is or was out of band."""
    last_loss: float
    last_out: int
    """The last step at which anything was out of band."""
    check_step: int
    peak_excess: float = 0.0
    check_excess: float = 0.0
    excess: float = 0.0
    rising_rows: int = 0
    falls: int = 0
    rises: int = 0
    calm: int = 0
    lull: int = 0
    """Calm rows before the last rows out of band."""
    left: float = 0.0
    """The mean excess of the last calm rows."""
    unburst: int = 0
    """Rows since the last one whose evidence was an alarm."""
    broken: bool = False
    root: int = 0
    """The onset that a rollback must lie before: that of the first of the incidents that led here."""
    known: bool = True
    """What the signal was expected to be is known: without that there is no excess."""
    waiting: list[str] = field(default_factory=list)
    """Why nothing has been done yet, and what will be said of it if the incident is over before anything is."""
    settled: bool = False
    """The policy has nothing more to say (observed, or a person said no)."""

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        data["incident"] |= {"peak_value": plain(self.incident.peak_value)}
        return data | {"last_loss": plain(self.last_loss)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "IncidentTracker":
        told = {name: value for name, value in data.items() if name != "peak_z"}  # which earlier collectors kept
        return cls(**told | {"incident": incident_from(data["incident"]), "last_loss": number(data["last_loss"])})

    def observe(self, step: int, readings: Mapping[str, Reading]) -> bool:
        """Take in the next row; True when the incident itself changed."""
        before = self.incident
        self.broken = any(reading.broken for reading in readings.values())
        out = any(reading.out(before.kind) for reading in readings.values())
        self.lull = self.calm if out and self.calm else self.lull
        self.calm = 0 if out else self.calm + 1
        self.last_out = step if out else self.last_out
        loss = readings.get("loss")
        if loss is not None and np.isfinite(loss.value):
            self._follow_loss(step, loss)
        burst = any(reading.evidence >= 1.0 for reading in readings.values())
        self.unburst = 0 if burst else self.unburst + 1
        self._peak(step, readings)
        return self.incident is not before

    def _follow_loss(self, step: int, loss: Reading) -> None:
        if not self.moved and loss.alarm():
            self.moved = True
            reason = f"The loss followed at step {step}: {describe('loss', loss)}."
            self._worsen(IncidentKind.LOSS_SPIKE, "loss", loss, reason)
        measured = self.known and self.incident.signal == "loss"
        self.excess = max(loss.value - self.incident.expected, 0.0) if measured else 0.0
        rose = loss.value > self.last_loss
        self.rises, self.falls = self.rises + rose, self.falls + (not rose)
        self.rising_rows = self.rising_rows + 1 if rose and loss.z >= CALM_Z else 0
        if self.rising_rows == GRADUAL and self.incident.kind is IncidentKind.LOSS_SPIKE:
            reason = f"The loss has risen on {GRADUAL} rows in a row: a divergence, not a spike."
            self._worsen(IncidentKind.DIVERGENCE, "loss", loss, reason)
        self.last_loss = loss.value
        self.left += (self.excess - self.left) / min(self.calm, LATELY) if self.calm else 0.0
        if self.excess > self.peak_excess:
            self.peak_excess = self.excess
            self.check_step, self.check_excess = step, self.excess

    def _worsen(self, kind: IncidentKind, signal: str, reading: Reading, reason: str) -> None:
        """The incident becomes one of a graver kind; its band is now that of the graver signal."""
        state = advance(self.incident.state, IncidentEvent.WORSEN)
        same = signal == self.incident.signal
        self.known = self.known if same else bool(np.isfinite(reading.expected))
        band = self.incident if same or not self.known else reading
        peak_value = self.incident.peak_value if same else band.expected  # a new scale
        self.incident = replace(
            self.incident,
            kind=kind,
            state=state,
            signal=signal,
            expected=band.expected,
            scale=band.scale,
            peak_value=peak_value,
            reasons=[*self.incident.reasons, reason],
        )

    def _peak(self, step: int, readings: Mapping[str, Reading]) -> None:
        reading = readings.get(self.incident.signal)
        if reading is None:
            return
        seen = np.array([self.incident.peak_value, reading.value])
        peak, now = away(self.incident.signal, seen, self.incident.expected)
        if now > peak:
            self.incident = replace(self.incident, peak_step=step, peak_value=reading.value)
        if reading.evidence > self.incident.score:
            self.incident = replace(self.incident, score=round(reading.evidence, 3))

    def halve(self, step: int, patience: int) -> None:
        """Begin the next span of patience when the excess has halved in the last one."""
        if step - self.check_step >= patience and self.excess <= 0.5 * self.check_excess:
            self.check_step, self.check_excess = step, self.excess

    def outdone(self, readings: Mapping[str, Reading]) -> str | None:
        """Why this row begins a graver incident than the present one, or None."""
        kind = self.incident.kind
        if kind is not IncidentKind.NONFINITE and any(reading.broken for reading in readings.values()):
            return "A value stopped being finite."
        loss = readings.get("loss")
        if kind is IncidentKind.DIVERGENCE and self.unburst >= 3 and loss is not None and loss.evidence >= 1.0:
            return "A spike rose out of the divergence."
        return None

    def over(self, settings: DetectionSettings) -> bool:
        """Back in band, and not only in part: or for so long that this is the normal now."""
        back = self.left <= LINGERS * self.incident.scale or self.calm >= settings.adopt_rows
        return self.calm >= settings.calm_rows and back

    def relit(self, readings: Mapping[str, Reading], settings: DetectionSettings) -> bool:
        """A new trouble begins while this one lingers in its band: an alarm by a row that stands out by itself."""
        signal = trigger(readings)
        calm = self.calm or self.lull
        return calm >= settings.calm_rows and signal is not None and readings[signal].z >= PRECURSOR_Z

    def close(self, outcome: Outcome, reason: str) -> Incident:
        state = advance(self.incident.state, IncidentEvent.CLOSE)
        reasons = [*self.incident.reasons, reason]
        self.incident = replace(self.incident, state=state, end_step=self.last_out, outcome=outcome, reasons=reasons)
        return self.incident


def incident_from(data: dict[str, Any]) -> Incident:
    kinds = {"kind": IncidentKind(data["kind"]), "state": IncidentState(data["state"])}
    return Incident(**data | kinds | {"outcome": Outcome(data["outcome"]), "peak_value": number(data["peak_value"])})


def trigger(readings: Mapping[str, Reading]) -> str | None:
    """The signal that makes this row an alarm: not finite before loss before precursors."""
    broken = [name for name, reading in readings.items() if reading.broken]
    alarms = [name for name, reading in readings.items() if reading.alarm()]
    return next(iter([*broken, *[name for name in alarms if name == "loss"], *alarms]), None)


KINDS = {"loss": IncidentKind.LOSS_SPIKE, "grad_norm": IncidentKind.GRAD_SPIKE, "log_z": IncidentKind.LOG_Z_DRIFT}


def kind_of(signal: str, reading: Reading) -> IncidentKind:
    if reading.broken:
        return IncidentKind.NONFINITE
    if signal == "loss" and reading.evidence < 1.0 <= reading.drift:
        return IncidentKind.DIVERGENCE
    return KINDS[signal]


def begin(number: int, step: int, signal: str, readings: Mapping[str, Reading], trail: Trail) -> IncidentTracker:
    """Open an incident at `step` because of `signal`, dated back to the first signal that left its band."""
    reading = readings[signal]
    kind = kind_of(signal, reading)
    onset, reasons = dated_back(step, signal, kind, reading, trail)
    expected = reading.expected if np.isfinite(reading.expected) else 0.0
    peak = trail.peak(signal, onset, expected)
    moved = kind is IncidentKind.NONFINITE or signal == "loss"
    incident = Incident(
        number=number,
        kind=kind,
        state=IncidentState.OPEN if moved else IncidentState.WARNING,
        signal=signal,
        onset_step=onset,
        detected_step=step,
        peak_step=int(trail.steps[peak]),
        peak_value=float(trail.values[signal][peak]),
        end_step=None,
        score=round(max(reading.evidence, reading.drift, 1.0), 3),
        expected=expected,
        scale=reading.scale if np.isfinite(reading.scale) else 0.0,
        outcome=Outcome.ONGOING,
        reasons=reasons,
    )
    loss = readings.get("loss")
    last_loss = loss.value if loss is not None and np.isfinite(loss.value) else float("inf")
    episode = IncidentTracker(incident, moved, last_loss, step, step, root=onset, broken=reading.broken)
    episode.known = bool(np.isfinite(reading.expected))
    if signal == "loss" and not reading.broken:
        episode.excess = episode.peak_excess = episode.check_excess = max(reading.value - expected, 0.0)
    return episode


def plateau(number: int, step: int, loss: Reading) -> Incident:
    """The advisory that the loss has not been lower for a long time: an incident that is over at once."""
    words = (
        f"The loss level was lowest at step {loss.low_step}, {step - loss.low_step} steps ago: {loss.expected:.5g} now."
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
        reasons=[words],
    )


def dated_back(step: int, signal: str, kind: IncidentKind, reading: Reading, trail: Trail) -> tuple[int, list[str]]:
    """(onset, the reasons so far): back to the rows that led here, and to the first precursor among them."""
    if kind is IncidentKind.NONFINITE:
        onset, reasons = step, [f"Step {step}: {signal} is not finite."]
    elif kind is IncidentKind.DIVERGENCE:
        words = (
            f"the loss level has risen since step {reading.low_step}, by {reading.drift:.3g} times the alarm threshold"
        )
        onset, reasons = reading.low_step, [f"Step {step}: {words}."]
    else:
        onset, reasons = onset_step(trail, signal), [f"Step {step}: {describe(signal, reading)}."]
    for other in trail.z:
        earlier = onset_step(trail, other, PRECURSOR_Z, gaps=3) if other not in (signal, "loss") else onset
        if earlier < onset:
            onset = earlier
            reasons.append(f"{other} left its band first, at step {onset}.")
    return onset, reasons


def outcome_of(episode: IncidentTracker, readings: Mapping[str, Reading]) -> tuple[Outcome, str]:
    """How an episode ended whose signals are all in band again: by coming back, or by becoming the normal."""
    incident = episode.incident
    last = readings.get("loss") if incident.signal == "loss" else None
    if last is None or not episode.peak_excess > 0:
        return Outcome.RECOVERED, f"Back in band since step {episode.last_out}."
    left = last.value - incident.expected
    if left <= max(3 * incident.scale, 0.3 * episode.peak_excess):
        return Outcome.RECOVERED, f"Back in band since step {episode.last_out}: loss {last.value:.4g}."
    far = left > FAR * max(abs(incident.expected), 1e-9)
    words = f"The loss stayed {left:.3g} above what was expected; this level is now taken for the normal one."
    return (Outcome.DIVERGED if far else Outcome.ONGOING), words
