"""What a `Watch` hands back: incidents, interventions and outliers, as values that never change."""

from dataclasses import dataclass, field

from lossguard.states import IncidentKind, IncidentState, InterventionState, OrderKind, Outcome


@dataclass(frozen=True, slots=True)
class Incident:
    """An episode of trouble. Steps are optimizer steps; values and band are in the signal's own unit."""

    number: int
    kind: IncidentKind
    state: IncidentState
    signal: str
    onset_step: int
    detected_step: int
    peak_step: int
    peak_value: float
    end_step: int | None
    score: float
    """How far past the alarm threshold: 1.0 is the threshold itself."""
    expected: float
    """What the signal was expected to be at detection."""
    scale: float
    """One robust standard deviation of the signal at detection."""
    outcome: Outcome
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Intervention:
    """What is done about an incident: restore step `rewind_to`, never use batches [skip_from, skip_to) again."""

    number: int
    incident: int | None
    kind: OrderKind
    state: InterventionState
    attempt: int
    rewind_to: int | None
    skip_from: int | None
    skip_to: int | None
    lr_scale: float | None
    decided_step: int
    verify_at: int | None
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IncidentChanged:
    incident: Incident


@dataclass(frozen=True, slots=True)
class InterventionChanged:
    intervention: Intervention


@dataclass(frozen=True, slots=True)
class Outlier:
    """One row out of band that was back at the next row: a hard batch, most likely. No incident."""

    step: int
    signal: str
    value: float
    score: float


Effect = IncidentChanged | InterventionChanged | Outlier
