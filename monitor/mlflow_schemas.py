"""The request bodies of MLflow's clients, as far as the collector reads them. Other fields are ignored: newer clients
send more. Null is as good as nothing, and whole numbers may be written as text, as protobuf's JSON does."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from lossguard.vocabulary.protocol import MAX_ITEMS, MAX_STEP, MAX_TIME, checked_json
from lossguard.vocabulary.states import RunState
from monitor.schemas import Json, Name, Number, RunId, Text, few_fields, whole

STATES = {
    "RUNNING": RunState.RUNNING,
    "FINISHED": RunState.FINISHED,
    "FAILED": RunState.FAILED,
    "KILLED": RunState.INTERRUPTED,
}
"""Run states by an MLflow client's status. The client's SCHEDULED has no state here yet."""


def _from_text(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else whole(value)


Milliseconds = Annotated[int, Field(strict=True, ge=0, lt=int(MAX_TIME) * 1000), BeforeValidator(_from_text)]
StepOfMetric = Annotated[int, Field(strict=True, ge=0, lt=MAX_STEP), BeforeValidator(_from_text)]
RunOf = Annotated[RunId, Field(validation_alias=AliasChoices("run_id", "run_uuid"))]
ExperimentId = Annotated[str, StringConstraints(pattern="^[0-9]{1,9}$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=250), AfterValidator(checked_json)]
Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]


def _number(value: Any) -> Any:
    """Most clients write "NaN", and some JSON writers NaN itself."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


class MlflowBody(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def null_is_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return few_fields({name: each for name, each in value.items() if each is not None})


class MetricIn(MlflowBody):
    """`key`: at most 128 characters, as for every metric here."""

    key: Name
    value: Annotated[Number, BeforeValidator(_number)]
    timestamp: Milliseconds
    step: StepOfMetric = 0


class PairIn(MlflowBody):
    """A param or a tag."""

    key: Key
    value: Text = ""


Pairs = Annotated[list[PairIn], Field(fail_fast=True, max_length=MAX_ITEMS)]


class OfRun(MlflowBody):
    run_id: RunOf


class LogMetricIn(MetricIn, OfRun): ...


class LogParamIn(PairIn, OfRun): ...


class SetTagIn(PairIn, OfRun): ...


class DeleteTagIn(OfRun):
    key: Key


class LogBatchIn(OfRun):
    metrics: Annotated[list[MetricIn], Field(fail_fast=True)] = []
    params: Pairs = []
    tags: Pairs = []


class LogInputsIn(OfRun):
    """`datasets`: with their digests, sources and schemas, as the client sends them."""

    datasets: Annotated[list[Json], Field(fail_fast=True, max_length=MAX_ITEMS)] = []


class LogOutputsIn(OfRun): ...


class CreateRunIn(MlflowBody):
    experiment_id: ExperimentId = "0"
    user_id: Text = ""
    run_name: Text | None = None
    start_time: Milliseconds | None = None
    tags: Pairs = []


class UpdateRunIn(OfRun):
    status: Status | None = None
    end_time: Milliseconds | None = None
    run_name: Text | None = None


class CreateExperimentIn(MlflowBody):
    name: Name
    artifact_location: Text = ""
    tags: Pairs = []


class ExperimentTagIn(PairIn):
    experiment_id: ExperimentId


class SearchExperimentsIn(MlflowBody):
    filter: Text = ""
    view_type: Text = "ACTIVE_ONLY"
    max_results: Annotated[int, Field(ge=1, le=50_000), BeforeValidator(_from_text)] = 1000
    page_token: Text = ""


class SearchRunsIn(MlflowBody):
    experiment_ids: Annotated[list[ExperimentId], Field(max_length=MAX_ITEMS)] = []
    filter: Text = ""
    run_view_type: Text = "ACTIVE_ONLY"
    order_by: Annotated[list[Text], Field(max_length=MAX_ITEMS)] = []
    max_results: Annotated[int, Field(ge=1, le=50_000), BeforeValidator(_from_text)] = 1000
    page_token: Text = ""
