"""Reading of one signal at one row."""

from dataclasses import dataclass

from lossguard.vocabulary.states import IncidentKind
from lossguard.vocabulary.wording import apart
from monitor.detection.scoring.baseline import FALL_Z

IN_BAND_Z = 3.0
IN_BAND_DRIFT = 0.6  # of the drift's threshold
FAR_Z = 20.0  # standard deviations; how many more of them says nothing to a person
PRECURSOR_Z = 5.0  # of a row that an onset is dated back to


@dataclass(frozen=True, slots=True)
class SignalReading:
    """One signal at one row: see `Scores`."""

    value: float
    z: float
    evidence: float
    single: float
    drift: float
    expected: float
    scale: float
    low_step: int
    rise_step: int
    reference: float
    fall: float
    sure: float
    non_finite: bool

    def is_alarm(self) -> bool:
        return self.non_finite or max(self.evidence, self.drift, self.fall) >= 1.0

    def is_sure(self) -> bool:
        """True if the reading is enough for an action: a spike of the loss needs more than for an incident."""
        return self.non_finite or max(self.sure, self.drift) >= 1.0

    def is_warning(self) -> bool:
        """True if an alarm of an advisory signal has a row that stands out itself: sums of earlier rows linger."""
        return self.non_finite or (self.evidence >= 1.0 and self.z >= PRECURSOR_Z)

    def is_out_of_band(self, kind: IncidentKind) -> bool:
        """The row itself is out of band or, in a slow divergence, the level."""
        drifted = kind is IncidentKind.DIVERGENCE and self.drift >= IN_BAND_DRIFT
        fallen = kind is IncidentKind.LOSS_COLLAPSE and self.z <= -FALL_Z
        return self.non_finite or self.z >= IN_BAND_Z or drifted or fallen


def describe(signal: str, reading: SignalReading) -> str:
    """A clause such as "loss is 3.2, expected 2.2 +- 0.2 (5 standard deviations, 1.2 times the alarm threshold)"."""
    value, expected = apart(reading.value, reading.expected)
    far = f"{reading.z:.3g} standard deviations, {reading.evidence:.3g} times the alarm threshold"
    where = "far outside the band" if abs(reading.z) >= FAR_Z else far
    return f"{signal} is {value}, expected {expected} \u00b1 {reading.scale:.3g} ({where})"


def score_of(kind: IncidentKind, reading: SignalReading) -> float:
    """The evidence for an incident of this kind, in alarm thresholds."""
    if kind is IncidentKind.DIVERGENCE:
        return max(reading.drift, reading.evidence)
    return reading.fall if kind is IncidentKind.LOSS_COLLAPSE else reading.evidence
