"""The bodies of the protocol, as OpenAPI shows them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lossguard.protocol import SegmentReason

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
StepNumber = Annotated[int, Field(ge=0, lt=2**62)]
RecordId = Annotated[int, Field(ge=1, lt=2**31)]
Seconds = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunIn(Body):
    id: RunId
    project: Name
    name: Annotated[str, StringConstraints(max_length=256)] | None = None
    config: dict[str, Any] = {}
    command: str | None = None
    git_commit: Annotated[str, StringConstraints(max_length=64)] | None = None
    host: Annotated[str, StringConstraints(max_length=256)] | None = None
    devices: list[str] = []
    versions: dict[str, str] = {}
    capabilities: list[str] = []
    started_at: Seconds
    total_steps: StepNumber | None = None


class SegmentIn(Body):
    key: Name
    fork_step: StepNumber | None = None
    reason: SegmentReason
    order: RecordId | None = None
    opened_at: Seconds


class EventIn(Body):
    key: Name
    step: StepNumber | None = None
    time: Seconds
    kind: Annotated[Name, StringConstraints(max_length=64)]
    details: dict[str, Any] = {}


class ReportIn(Body):
    """Columns of equal length. In `metrics` a number that is not finite is "NaN", "Infinity" or "-Infinity"; null
    means that the metric was not reported at that step. An empty report is a heartbeat."""

    segment: Annotated[int, Field(ge=0, lt=2**31)]
    steps: list[StepNumber] = []
    times: list[Seconds] = []
    metrics: dict[Name, list[Any]] = {}
    events: list[EventIn] = []
    restorable_steps: list[StepNumber] | None = None


class AnswerIn(Body):
    state: Literal["applied", "failed"]
    key: Annotated[str, StringConstraints(max_length=32)] | None = None
    """The order's key, where the trainer knows it: an answer to another order is refused."""
    rewound_to: StepNumber | None = None
    skip_from: StepNumber | None = None
    skip_to: StepNumber | None = None
    detail: str = ""


class FinishIn(Body):
    state: Literal["finished", "interrupted", "failed"]
    at: Seconds


class RollbackIn(Body):
    """A person's order. Without numbers the policy's own depth and width are used, from the newest step on."""

    rewind_to: StepNumber | None = None
    skip_to: StepNumber | None = None
    reason: str = ""
