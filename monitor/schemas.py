"""The request bodies of the API, as OpenAPI describes them."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from lossguard.vocabulary.hardware import MAX_DEVICE, MAX_SAMPLES_PER_REPORT, MAX_VALUES
from lossguard.vocabulary.protocol import (
    ARMS,
    MAX_COMMIT,
    MAX_ITEMS,
    MAX_KIND,
    MAX_RESTORABLE_STEPS,
    MAX_SHORT_TEXT,
    MAX_STEP,
    MAX_STEP_NOTE,
    MAX_TAGS,
    MAX_TEXT,
    MAX_TIERS,
    MAX_TIME,
    PROBE,
    RUN_ID_PATTERN,
    TIER_PATTERN,
    checked_json,
)
from lossguard.vocabulary.states import Cause, SegmentReason
from lossguard.vocabulary.wire import MAX_CHARACTERS, MAX_SENTENCE, MAX_TEXTS, ArmsTried, Probe


def whole(value: Any) -> Any:
    """JSON has one kind of number, and some writers put a point into every one: 12.0 is the whole number 12."""
    return int(value) if type(value) is float and value.is_integer() else value


def _all_whole(values: Any) -> Any:
    """Check a list. Nearly every list holds integers alone and is returned unchanged."""
    if not isinstance(values, list) or set(map(type, values)) <= {int}:
        return values
    return [whole(value) for value in values]


# Strict: a text of digits or a truth value is no number, although Python would make one of it.
Json = Annotated[dict[str, Any], AfterValidator(checked_json)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(checked_json)]
Short = Annotated[str, StringConstraints(max_length=MAX_SHORT_TEXT), AfterValidator(checked_json)]
MaxItems = Field(max_length=MAX_ITEMS)
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(checked_json)
]
RunId = Annotated[str, StringConstraints(pattern=f"^{RUN_ID_PATTERN}$")]
Step = Annotated[int, Field(strict=True, ge=0, lt=MAX_STEP)]
StepNumber = Annotated[Step, BeforeValidator(whole)]
StepNumbers = Annotated[list[Step], Field(fail_fast=True), BeforeValidator(_all_whole)]
SmallNumber = Annotated[int, Field(strict=True, ge=0, lt=2**31), BeforeValidator(whole)]
Reference = Annotated[int, Field(strict=True, ge=1, lt=2**31), BeforeValidator(whole)]
"""The id of a record in a body."""
RecordId = Annotated[int, Field(ge=1, lt=2**31)]
"""The id of a record in a path, where every number is a text."""
Seconds = Annotated[float, Field(strict=True, ge=0, lt=MAX_TIME, allow_inf_nan=False)]


Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


MAX_FIELDS = 10_000
"""Names in an object. Each may be a mistake, whose description takes ten times the memory of the name."""


def few_fields(value: Any) -> Any:
    """Raise ValueError for an object with more than MAX_FIELDS names."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise ValueError(f"at most {MAX_FIELDS} names are allowed here")
    return value


FewFields = BeforeValidator(few_fields)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def has_few_fields(cls, value: Any) -> Any:
        return few_fields(value)


class RunIn(Body):
    id: RunId
    project: Name
    name: Short | None = None
    config: Json = {}
    command: Text | None = None
    git_commit: Annotated[Short, StringConstraints(max_length=MAX_COMMIT)] | None = None
    host: Short | None = None
    devices: Annotated[list[Short], MaxItems] = []
    versions: Annotated[dict[Short, Short], FewFields, MaxItems] = {}
    capabilities: Annotated[list[Short], MaxItems] = []
    started_at: Seconds
    total_steps: StepNumber | None = None
    policy: Json | None = None
    """Values of the policy that the run has of its own, until an operator sets them."""


class RunEditIn(Body):
    """Edit of a run by a person. Only the named fields are changed."""

    name: Annotated[Short, StringConstraints(min_length=1)] | None = None
    tags: Annotated[list[Name], Field(max_length=MAX_TAGS)] | None = None
    """Tags that replace all tags so far."""
    note: Text | None = None
    archived: bool | None = None
    """True if lists leave it out."""


class StepNoteIn(Body):
    """Note of a person at a step."""

    text: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_STEP_NOTE),
        AfterValidator(checked_json),
    ]
    step: StepNumber | None = None
    """Step of the note; None: the newest step."""


class SegmentIn(Body):
    key: Name
    fork_step: StepNumber | None = None
    reason: SegmentReason
    order: Reference | None = None
    opened_at: Seconds


class EventIn(Body):
    key: Name
    step: StepNumber | None = None
    time: Seconds
    kind: Annotated[Name, StringConstraints(max_length=MAX_KIND)]
    details: Json = {}

    @model_validator(mode="after")
    def well_formed(self) -> Self:
        """The details of a probe and of arms have a fixed form (lossguard.vocabulary.wire); others are free."""
        if self.kind == PROBE:
            Probe.from_details(self.details)
        if self.kind == ARMS:
            ArmsTried.from_details(self.details)
        return self


class TierIn(Body):
    """The restorable steps of one tier, and how long the last load and the last save there took; null: not measured."""

    tier: Annotated[str, StringConstraints(pattern=f"^{TIER_PATTERN}$")]
    steps: Annotated[StepNumbers, Field(max_length=MAX_RESTORABLE_STEPS)]
    load_seconds: Seconds | None = None
    save_seconds: Seconds | None = None


class HardwareIn(Body):
    """A sample of the hardware: what one device did since its sample before."""

    time: Seconds
    step: StepNumber | None = None
    """The newest step that the run had logged."""
    host: Short
    device: Annotated[Short, StringConstraints(min_length=1, max_length=MAX_DEVICE)]
    values: Annotated[dict[Name, Finite], Field(max_length=MAX_VALUES)]


Sentence = Annotated[Text, StringConstraints(max_length=MAX_SENTENCE)]


class BatchTextIn(Body):
    """The beginning of a batch as text."""

    batch: StepNumber
    text: Annotated[Text, StringConstraints(max_length=MAX_CHARACTERS)]


class PreflightIn(Body):
    """The trainer's answer about a rollback that waits for approval (`lossguard.vocabulary.wire.Answer`)."""

    id: Short
    problem: Sentence = ""
    tier: Annotated[str, StringConstraints(pattern=f"^{TIER_PATTERN}$")] | None = None
    refused: Sentence = ""
    texts: Annotated[list[BatchTextIn], Field(max_length=MAX_TEXTS)] = []


class ReportIn(Body):
    """Columns of equal length. In `metrics`, non-finite numbers are "NaN", "Infinity" or "-Infinity"; null means
    that the metric was not reported at that step. An empty report is a heartbeat. The first mistake in a list ends its
    validation: a list of nothing but mistakes would take gigabytes."""

    segment: SmallNumber
    steps: StepNumbers = []
    times: Annotated[list[Seconds], Field(fail_fast=True)] = []
    metrics: Annotated[dict[Name, list[Any]], FewFields] = {}
    events: Annotated[list[EventIn], Field(fail_fast=True)] = []
    restorable_steps: Annotated[StepNumbers, Field(max_length=MAX_RESTORABLE_STEPS)] | None = None
    restorable_tiers: Annotated[list[TierIn], Field(max_length=MAX_TIERS)] | None = None
    """Tiers of the restorable steps of the same report. A step in several tiers counts for the first of them."""
    hardware: Annotated[list[HardwareIn], Field(max_length=MAX_SAMPLES_PER_REPORT, fail_fast=True)] = []
    preflight: PreflightIn | None = None
    """The answer to the question that came with an earlier answer."""

    @model_validator(mode="after")
    def tiers_hold_restorable_steps(self) -> Self:
        for tier in self.restorable_tiers or ():
            if unknown := set(tier.steps).difference(self.restorable_steps or ()):
                raise ValueError(f"tier {tier.tier!r:.80} has step {min(unknown)}, which is not in restorable_steps")
        return self


class AnswerIn(Body):
    state: Literal["applied", "failed"]
    key: Annotated[str, StringConstraints(max_length=32)]
    """The order's key: an answer to a different order is refused."""
    rewound_to: StepNumber | None = None
    skip_from: StepNumber | None = None
    skip_to: StepNumber | None = None
    detail: Text = ""
    compared: Annotated[bool, Field(strict=True)] | None = None
    """True with `applied` if the trainer compares the samples that it trains on with those that it skips."""
    refusal: Annotated[str, StringConstraints(pattern="^[a-z_]{1,16}$")] | None = None
    """Reason with `failed` why the trainer would not carry it out: a word of `lossguard.vocabulary.states.Refusal`, or
    of a later one."""


class FinishIn(Body):
    state: Literal["finished", "interrupted", "failed"]
    at: Seconds


Number = Finite | Literal["NaN", "Infinity", "-Infinity"]
Curve = Annotated[list[Number], Field(max_length=2000)]


class ArmIn(Body):
    """A replay of one state with one list of batches. `losses`: nats per token, one per step from `checkpoint`."""

    state: Literal["same", "earlier"]
    batches: Literal["same", "other"]
    checkpoint: StepNumber
    reproduced: Annotated[bool, Field(strict=True)]
    worst: Number
    """The value of the signal furthest from `expected`."""
    expected: Number
    tolerance: Number
    """A value further from `expected` than this reproduces the incident."""
    losses: Curve


class EvidenceIn(Body):
    """The evidence for a verdict."""

    signal: Name
    first_step: StepNumber
    """Step of the checkpoint from which the incident was replayed."""
    last_step: StepNumber
    recorded: Curve
    """The losses of the run itself from `first_step` on."""
    departed_at: StepNumber | None
    """First step at which the replay of the same state and batches left the recorded curve."""
    repeat_tolerance: Number
    """Distance of repeated clean steps from their recorded losses; 0 if they are bit-identical."""
    arms: Annotated[list[ArmIn], Field(max_length=16)]


class BatchesIn(Body):
    """The batches [batch_from, batch_to)."""

    batch_from: StepNumber
    batch_to: StepNumber


class ExcerptIn(Body):
    """The row of a culprit batch with the highest loss, as text (or as token ids if there is no text)."""

    batch: StepNumber
    row: SmallNumber
    loss: Number
    inputs: Annotated[Text, StringConstraints(max_length=2000)]
    targets: Annotated[Text, StringConstraints(max_length=2000)]


class VerdictIn(Body):
    """The cause of an incident, as a replay found it."""

    cause: Cause
    sentence: Annotated[Text, StringConstraints(min_length=1, max_length=1000)]
    evidence: EvidenceIn
    culprits: Annotated[list[BatchesIn], Field(max_length=64)] = []
    excerpts: Annotated[list[ExcerptIn], Field(max_length=16)] = []
    replayed_at: Seconds
    version: Short
    """Lossguard version."""


class RollbackIn(Body):
    """A rollback ordered by a person. Without numbers, the policy's depth and width apply, from the newest step."""

    rewind_to: StepNumber | None = None
    skip_from: StepNumber | None = None
    """First batch to skip; without it: the batch of the checkpoint."""
    skip_to: StepNumber | None = None
    lr_scale: Annotated[Finite, Field(gt=0, le=1)] | None = None
    """Factor on the schedule's learning rate from the checkpoint on. Without it: the rate stays as it is."""
    remedies: Annotated[list[Short], MaxItems] = []
    """Names of remedies that the run has registered."""
    reason: Text = ""
    dry_run: bool = False
    """Order nothing: answer what would be ordered."""


class HoldIn(Body):
    """A hold ordered by a person."""

    reason: Text = ""
