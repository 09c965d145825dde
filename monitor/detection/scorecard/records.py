"""What the scorecard reads of a run: the shape of the records of `db.scorecard`, which detection does not import."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lossguard.vocabulary.states import InterventionState, OrderKind
from monitor.detection.effects import Incident, Intervention
from monitor.detection.encoding import known_fields, restore
from monitor.detection.incidents.open_incident import incident_from_dict


class SegmentRecord(Protocol):
    """A segment whose first step is known."""

    @property
    def number(self) -> int: ...
    @property
    def fork_step(self) -> int: ...
    @property
    def last_step(self) -> int | None: ...
    @property
    def intervention(self) -> int | None:
        """The number of the intervention whose order it carries out."""


class IncidentRecord(Protocol):
    """An incident as it is stored."""

    @property
    def segment(self) -> int: ...
    @property
    def details(self) -> Mapping[str, Any]: ...


class RunRecord(Protocol):
    """A run as the scorecard sees it. No step of it is read."""

    @property
    def id(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def state(self) -> str: ...
    @property
    def policy(self) -> Mapping[str, Any] | None: ...
    @property
    def capabilities(self) -> Sequence[Any]: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def devices(self) -> Sequence[Any]: ...
    @property
    def num_steps(self) -> int:
        """Optimizer steps of all segments."""

    @property
    def step_seconds(self) -> float | None:
        """Mean duration of a step; None: not known."""

    @property
    def segments(self) -> Sequence[SegmentRecord]:
        """In the order in which they were opened."""

    @property
    def incidents(self) -> Sequence[IncidentRecord]: ...
    @property
    def interventions(self) -> Sequence[Mapping[str, Any]]: ...


UNKNOWN: Mapping[str, Any] = {"peak_value": "NaN", "expected": float("nan"), "scale": float("nan"), "reasons": []}
"""What a stored incident says of its signal when an early release left it out."""


def incident_in(record: IncidentRecord) -> Incident | None:
    """None for what this release cannot read."""
    details = {name: value for name, value in record.details.items() if value is not None}
    stored = {"end_step": None, "score": 0.0, "outcome": "ongoing", "peak_step": details.get("detected_step")} | details
    return restore(incident_from_dict, {**UNKNOWN, **stored})


def intervention_in(details: Mapping[str, Any]) -> Intervention | None:
    """None for what this release cannot read."""
    return restore(_intervention, {"decided_step": -1, "verify_at": None, **details})


def _intervention(data: Mapping[str, Any]) -> Intervention:
    enums = {"kind": OrderKind(data["kind"]), "state": InterventionState(data["state"])}
    return Intervention(**known_fields(Intervention, data) | enums)
