"""Input of the scorecard: the shape of the records of `db.scorecard`, which detection does not import."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from monitor.detection.effects import Incident, Intervention
from monitor.detection.encoding import restore_row
from monitor.detection.incidents.open_incident import incident_from_dict
from monitor.detection.interventions.intervention_tracker import intervention_from_dict


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
        """Segments in the order in which they were opened."""

    @property
    def incidents(self) -> Sequence[IncidentRecord]: ...
    @property
    def interventions(self) -> Sequence[Mapping[str, Any]]: ...


def incident_in(record: IncidentRecord) -> Incident | None:
    """Read an incident; None if this release cannot."""
    return restore_row(incident_from_dict, dict(record.details))


def intervention_in(details: Mapping[str, Any]) -> Intervention | None:
    """Read an intervention; None if this release cannot."""
    return restore_row(intervention_from_dict, details)
