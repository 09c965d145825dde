"""Results of the detection engine: incidents, interventions and outliers, as immutable values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lossguard.vocabulary.states import IncidentKind, IncidentState, InterventionState, OrderKind, Outcome


@dataclass(frozen=True, slots=True)
class Proposal:
    """Proposed action on an incident where the policy does not act: in observe mode, or in a run that only reports."""

    kind: OrderKind
    decided_step: int
    rewind_to: int | None
    skip_from: int | None
    skip_to: int | None


@dataclass(frozen=True, slots=True)
class Incident:
    """A stretch of steps on which something went wrong. Values and band are in the signal's own unit."""

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
    """The largest evidence, in alarm thresholds: 1.0 is the threshold itself."""
    expected: float
    """Value of the signal that was expected at detection."""
    scale: float
    """One robust standard deviation of the signal at detection."""
    outcome: Outcome
    reasons: list[str] = field(default_factory=list)
    proposal: Proposal | None = None
    """The first one; None where the policy waited, or gave orders."""
    lasting_probability: float | None = None
    """Probability that it does not recover by itself, until the policy acts. None: too little is known."""
    superseded_by: int | None = None
    """Number of the incident as which the trouble goes on, where this one ended because that one began."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """The response to an incident: restore step `rewind_to` and skip batches [skip_from, skip_to) from then on."""

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
    site_start: int | None = None
    """The onset of the trouble that it is to get past."""
    site_end: int | None = None
    """The last step at which a further onset counts as a recurrence; a later one is an incident of its own."""
    remedies: list[str] = field(default_factory=list)
    """The remedies that are switched on with it."""
    compared: bool | None = None
    """True if the trainer compares the samples that it trains on with the skipped ones; None: it has not said so."""
    mode: str | None = None
    """The mode of the policy that decided on it; None: an operator did."""


@dataclass(frozen=True, slots=True)
class IncidentChanged:
    incident: Incident


@dataclass(frozen=True, slots=True)
class InterventionChanged:
    intervention: Intervention
    choices: Sequence[dict[str, Any]] = ()
    """Once, with the decision: the treatments that were compared (see `interventions.decision.Choice`)."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """One row out of band, followed by a row in band: most likely a hard batch. No incident."""

    step: int
    signal: str
    value: float
    score: float


Effect = IncidentChanged | InterventionChanged | Outlier
