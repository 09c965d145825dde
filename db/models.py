"""Tables of the store.

Times are unix seconds (UTC). Steps count optimizer steps from 0. A number that is not finite is never in a numeric
column (SQLite turns NaN into NULL, PostgreSQL sorts it above all numbers, and every aggregate would be NaN): what steps
report is stored as bytes.
"""

import json
import re
import secrets
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lossguard.vocabulary.protocol import MAX_TIME

MAX_AUTHOR = 320
"""Characters of who did something."""

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# What a column may hold is checked when it is written, and bounded when it is read: one run whose configuration is a
# list, or whose times lie beyond every calendar, would break the list of runs for everybody.


class _Json(TypeDecorator[Any]):
    """JSON of which what cannot be read counts as something else than what the column holds."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        decode = super().result_processor(dialect, coltype)
        if decode is None:
            return None

        def decoded(value: Any) -> Any:
            try:
                found = decode(value)
                return _encodable(found) if isinstance(value, str) and _SURROGATE.search(value) else found
            except (ValueError, RecursionError):  # damaged text: one such row must not cost the run every request
                return self.process_result_value("", dialect)

        return decoded


_SURROGATE = re.compile(r"\\u[dD]")
"""Begins what JSON may hold and no answer: half of a character."""


def _encodable(value: Any) -> Any:
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


class JsonObject(_Json):
    """A JSON object; anything else that was stored is read as an empty one."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> dict[str, Any] | None:
        return value if value is None or isinstance(value, dict) else {}

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)


class RuleObject(JsonObject):
    """Fields of a policy. Anything else that was stored is read as UNREADABLE_RULE, which no release accepts: an empty
    object would be the default policy, and no default may act in the place of what people have set."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> dict[str, Any] | None:
        return value if value is None or isinstance(value, dict) else dict(UNREADABLE_RULE)


UNREADABLE_RULE: Mapping[str, Any] = {"unreadable": "what is stored is no JSON object"}


class JsonList(_Json):
    """A JSON list; anything else that was stored is read as an empty one, and elements of another type are left out."""

    cache_ok = True

    def __init__(self, element: type = object) -> None:
        super().__init__()
        self.element = element

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> list[Any] | None:
        if value is None or self.element is object:
            return value if value is None or isinstance(value, list) else []
        return [each for each in value if type(each) is self.element] if isinstance(value, list) else []


class UnixTime(TypeDecorator[float]):
    """Unix seconds; a time beyond the year 5138 is read as that year, one before 1970 and what is no number as 1970."""

    impl = Float(53)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> float | None:
        if value is None:
            return None
        return min(max(0.0, value), MAX_TIME) if isinstance(value, int | float) else 0.0


BigInt = Annotated[int, mapped_column(BigInteger)]
Str16 = Annotated[str, mapped_column(String(16))]
Str32 = Annotated[str, mapped_column(String(32))]
Str64 = Annotated[str, mapped_column(String(64))]
Str128 = Annotated[str, mapped_column(String(128))]
Str256 = Annotated[str, mapped_column(String(256))]
Author = Annotated[str, mapped_column(String(MAX_AUTHOR))]
"""Author of an action: a person and the token that acted for them, or a token, or a command."""
LongText = Annotated[str, mapped_column(Text)]
Texts = Annotated[list[Any], mapped_column(JsonList(str))]
Time = Annotated[float, mapped_column(UnixTime())]
OfRun = Annotated[int, mapped_column(ForeignKey("runs.pk", ondelete="CASCADE"))]
"""Key of the run to which a row belongs."""
OnlyOfRun = Annotated[int, mapped_column(ForeignKey("runs.pk", ondelete="CASCADE"), primary_key=True)]
"""Key of the run to which a row belongs, as a part of its own primary key."""
Key = Annotated[int, mapped_column(primary_key=True)]
KeyPart = Annotated[int, mapped_column(primary_key=True, autoincrement=False)]
BigKeyPart = Annotated[int, mapped_column(BigInteger, primary_key=True, autoincrement=False)]
JsonDict = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        JsonDict: JsonObject(),
        list[Any]: JsonList(),
        float: Float(53),
        bytes: LargeBinary(),
    }


class Run(Base):
    """One training job, through all of its restarts and rollbacks."""

    __tablename__ = "runs"
    __table_args__ = (sa.Index("ix_runs_started_at", "started_at", "pk"),)

    pk: Mapped[Key]
    id: Mapped[Str128] = mapped_column(unique=True)
    project: Mapped[Str128] = mapped_column(index=True)
    name: Mapped[Str256 | None]
    state: Mapped[Str16] = mapped_column(index=True)
    config: Mapped[JsonDict]
    command: Mapped[LongText | None]
    git_commit: Mapped[Str64 | None]
    host: Mapped[Str256 | None]
    devices: Mapped[list[Any]]
    versions: Mapped[JsonDict]
    capabilities: Mapped[Texts]
    policy: Mapped[JsonDict | None] = mapped_column(RuleObject())
    """The rule from incidents to interventions as `monitor.detection.Policy.to_dict` writes it; NULL is the default.
    It follows the policy layers when the run is next locked and read; that of a run that has ended stays."""
    tags: Mapped[Texts | None]
    """Words that people gave it; NULL: those that the loop gave it count, `tags` in `config`."""
    note: Mapped[LongText | None]
    """Note that people wrote about the run."""
    archived_at: Mapped[Time | None]
    """Time since which lists leave the run out, until it runs again."""
    total_steps: Mapped[BigInt | None]
    restorable_steps: Mapped[list[Any]] = mapped_column(JsonList(int))
    restorable_tiers: Mapped[list[Any] | None] = mapped_column(JsonList(dict))
    """Tiers of these steps, as a report names them (`monitor.schemas.TierIn`); NULL: unknown."""
    started_at: Mapped[Time]
    last_report_at: Mapped[Time]
    """Time of the run's last report, by the collector's clock."""
    finished_at: Mapped[Time | None]
    lease_writer: Mapped[Str64 | None]
    """The folder whose process carries out the run's orders (`lossguard.spool.writer.Writer`); a secret of that
    folder."""
    lease_session: Mapped[Str64 | None]
    """The process that holds the lease: an older one of the same folder has lost the run for good."""
    lease_process: Mapped[Str256 | None]
    """Name of this process for people."""
    lease_until: Mapped[Time | None]
    """Time up to which no other folder takes the lease, by the collector's clock."""
    revision: Mapped[BigInt] = mapped_column(default=lambda: secrets.randbits(48), server_default="0")
    """Rises with every transaction that locks the run: a copy from another revision is stale. It starts at a random
    number, because SQLite gives the key of a deleted run to the next one."""


class Segment(Base):
    """Consecutive steps of a run; `fork_step` is the first one, `parent` the segment that it forked from."""

    __tablename__ = "segments"
    __table_args__ = (UniqueConstraint("run_pk", "key"),)

    run_pk: Mapped[OnlyOfRun]
    number: Mapped[Key]
    parent: Mapped[int | None]
    fork_step: Mapped[BigInt | None]
    """NULL until the first step arrives, when a resume was opened without it."""
    key: Mapped[Str128]
    reason: Mapped[Str16]
    order_id: Mapped[int | None]
    opened_at: Mapped[Time]
    """Time by the trainer's clock: it is shown, and nothing is decided by it."""
    live_order: Mapped[int]
    """The live line leads to the segment with the greatest. BESIDE: it never led the line, because
    a process without the lease of the run opened it. The collector gives it, so no clock of a trainer matters: a later
    segment gets a greater one, and a greater one again when its process takes over the run."""
    writer: Mapped[Str32 | None]
    """Digest of the folder whose process opened it (`lossguard.spool.writer.Writer`): only that one adds to it. NULL: a
    process that did not say who it is."""
    first_step: Mapped[BigInt | None]
    last_step: Mapped[BigInt | None]
    num_steps: Mapped[BigInt] = mapped_column(default=0)
    num_packed: Mapped[BigInt] = mapped_column(default=0, server_default="0")
    """Steps in blocks; the other ones are rows of `steps`."""

    @property
    def is_beside(self) -> bool:
        return self.live_order == BESIDE

    def is_of(self, writer: str | None) -> bool:
        """True if the process with this digest may add to it; anybody may where nobody said who it was."""
        return self.writer is None or self.writer == writer


BESIDE = -1
"""`live_order` of a segment that is beside the live line."""
INNER_COLUMNS = ("num_packed", "writer")
"""Columns of a segment that mean something in this store alone: no list or table shows them."""


class Step(Base):
    """The step report of one optimizer step that is in no block. Only `db.steps` reads and writes the table."""

    __tablename__ = "steps"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it from the class

    run_pk: Mapped[OnlyOfRun]
    segment: Mapped[KeyPart]
    step: Mapped[BigKeyPart]
    time: Mapped[float]
    values: Mapped[bytes]
    """The metrics that the step reported: `db.steps.codec.CELL`."""


class StoredBlock(Base):
    """Some hundreds of steps of a segment, one after another; blocks of a segment do not overlap: `db.steps.blocks`."""

    __tablename__ = "step_blocks"
    __table_args__ = {"postgresql_partition_by": "RANGE (run_pk)"}  # noqa: RUF012 - SQLAlchemy reads it from the class

    run_pk: Mapped[KeyPart]
    """Key of the run, without a foreign key: see db.store.partitions."""
    segment: Mapped[KeyPart]
    first_step: Mapped[BigKeyPart]
    last_step: Mapped[BigInt]
    num_steps: Mapped[int]
    steps: Mapped[bytes | None]
    """Numbers of the steps; NULL if none is missing between first and last. See `db.steps.codec`."""
    times: Mapped[bytes]
    archived_file: Mapped[int | None]
    """`db.steps.archived.files.ArchivedFile.id`: the file has the values, `block_values` none; NULL: they are in the
    store."""


class BlockValues(Base):
    """One metric of the steps of a block: the values that were reported, not-finite ones as they are."""

    __tablename__ = "block_values"
    __table_args__ = {"postgresql_partition_by": "RANGE (run_pk)"}  # noqa: RUF012 - SQLAlchemy reads it from the class

    run_pk: Mapped[KeyPart]
    segment: Mapped[KeyPart]
    metric: Mapped[KeyPart]
    """`Metric.number`"""
    first_step: Mapped[BigKeyPart]
    """First step of the block."""
    values: Mapped[bytes]
    reported: Mapped[bytes | None]
    """Mask of the steps that have a value; NULL if all have."""


class SchemaCompatibility(Base):
    """First revision whose release may use the store, in one row: see `db.migrate`."""

    __tablename__ = "schema_compatibility"

    compatible_from: Mapped[Str32] = mapped_column(primary_key=True)


class RunStatus(Base):
    """The present state of a run by its reports, as `/metrics` shows it."""

    __tablename__ = "pulses"

    run_pk: Mapped[OnlyOfRun]
    step: Mapped[BigInt | None]
    last_step_at: Mapped[float] = mapped_column("stepped_at")
    """Arrival of the newest steps, by the collector's clock; or a later registration of the run, or end of a hold."""
    expected_by: Mapped[float | None]
    """A pause was announced: the next step is due by then."""
    undelivered_bytes: Mapped[BigInt | None]
    """Bytes that are left in the trainer's spool, as its last report says."""
    nonfinite_steps: Mapped[BigInt] = mapped_column(default=0)
    skipped_steps: Mapped[BigInt] = mapped_column(default=0)
    latest_values: Mapped[JsonDict] = mapped_column("newest")
    """Metric -> its last value; non-finite numbers encoded, here and in `peaks`."""
    losses: Mapped[JsonDict | None]
    """The last values of the loss on the live line (`recent`), and its level at intervals (`marks`)."""
    peaks: Mapped[list[Any]]
    """[slot of wall time, {metric: its maximum}] of the last few slots."""
    recent_reports: Mapped[list[Any]] = mapped_column("beats")
    """[time, step, tokens, seconds a step] of the last few reports, by the trainer's clock."""
    stall_after: Mapped[float | None]
    """Seconds without a step that are a stall; NULL where nothing is known of this process yet."""
    report_gaps: Mapped[list[Any] | None]
    """Seconds between the last reports with steps, by the collector's clock; NULL before the second."""


class Incident(Base):
    """A spike, a divergence or another anomaly, numbered within its run."""

    __tablename__ = "incidents"
    __table_args__ = (UniqueConstraint("run_pk", "number"),)

    id: Mapped[Key]
    run_pk: Mapped[OfRun]
    number: Mapped[int]
    segment: Mapped[int]
    kind: Mapped[Str32]
    state: Mapped[Str32]
    signal: Mapped[Str64]
    onset_step: Mapped[BigInt]
    detected_step: Mapped[BigInt]
    peak_step: Mapped[BigInt | None]
    end_step: Mapped[BigInt | None]
    score: Mapped[float | None]
    outcome: Mapped[Str32 | None]
    details: Mapped[JsonDict]
    """All fields of the detection's own object (peak value, band, reasons); non-finite numbers encoded."""
    verdict: Mapped[JsonDict | None]
    """The cause that a replay found (`monitor.schemas.VerdictIn`); NULL without a replay."""
    opened_at: Mapped[Time]
    changed_at: Mapped[Time]


class Intervention(Base):
    """A rollback, a hold or a release, numbered within its run."""

    __tablename__ = "interventions"
    __table_args__ = (UniqueConstraint("run_pk", "number"),)

    id: Mapped[Key]
    run_pk: Mapped[OfRun]
    number: Mapped[int]
    incident: Mapped[int | None]
    """Number of the incident within the run; NULL when an operator requested the intervention without one."""
    kind: Mapped[Str16]
    state: Mapped[Str32]
    attempt: Mapped[int]
    rewind_to: Mapped[BigInt | None]
    skip_from: Mapped[BigInt | None]
    skip_to: Mapped[BigInt | None]
    lr_scale: Mapped[float | None]
    remedies: Mapped[Texts | None]
    """Names of the remedies that are switched on; NULL: none."""
    details: Mapped[JsonDict]
    created_at: Mapped[Time]
    changed_at: Mapped[Time]


class Order(Base):
    """An intervention as sent to the trainer, which carries it out once or not at all."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("run_pk", "intervention"),)

    id: Mapped[Key]
    run_pk: Mapped[OfRun]
    key: Mapped[Str32]
    """Random: a rebuilt store reuses ids, and an answer to an older order is no answer to this one."""
    intervention: Mapped[int]
    kind: Mapped[Str16]
    state: Mapped[Str16]
    incident: Mapped[int | None]
    rewind_to: Mapped[BigInt | None]
    skip_from: Mapped[BigInt | None]
    skip_to: Mapped[BigInt | None]
    lr_scale: Mapped[float | None]
    remedies: Mapped[Texts | None]
    """Names of the remedies that are switched on; NULL: none."""
    reason: Mapped[LongText]
    rewound_to: Mapped[BigInt | None]
    """The step that the trainer went back to: an older checkpoint when the planned one was damaged."""
    detail: Mapped[LongText | None]
    segment: Mapped[Str128 | None]
    """Key of the segment about which it was decided."""
    step: Mapped[BigInt | None]
    """The newest step that was then known."""
    expires_at: Mapped[Time | None]
    """Time from which the trainer refuses it; so it does after `expires_step`."""
    expires_step: Mapped[BigInt | None]
    approved_by: Mapped[Author | None]
    """Person who approved or gave it, as named in the audit trail; NULL: the policy ordered it by itself."""
    signature: Mapped[Str64 | None]
    """See `lossguard.vocabulary.orders`."""
    refusal: Mapped[Str16 | None]
    """One of `lossguard.vocabulary.states.Refusal`, if the trainer would not carry it out."""
    created_at: Mapped[Time]
    answered_at: Mapped[Time | None]


class SkippedBatches(Base):
    """The skip ledger: batches [skip_from, skip_to) that a run excludes, and why."""

    __tablename__ = "skip_ledger"

    id: Mapped[Key]
    run_pk: Mapped[OfRun]
    skip_from: Mapped[BigInt]
    skip_to: Mapped[BigInt]
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id", ondelete="SET NULL"), unique=True)
    reason: Mapped[LongText]
    created_at: Mapped[Time]


class Event(Base):
    """An event that the training loop declared, or an outlier without an incident."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("run_pk", "key"),)

    id: Mapped[Key]
    run_pk: Mapped[OfRun]
    key: Mapped[Str128]
    segment: Mapped[int]
    step: Mapped[BigInt | None]
    time: Mapped[Time]
    kind: Mapped[Str64]
    details: Mapped[JsonDict]


CRC = "crc"
"""Name under which a state of the detection holds the CRC-32 of what it says. It finds damage, not forgery."""


def state_text(state: Mapping[str, Any], segment: int | None, step: int | None) -> str:
    """The JSON of a state that has seen `step` of `segment`, with its CRC-32.

    It is strict JSON of 10 kB: this takes a tenth of what the standard library does.
    """
    text = orjson.dumps(state)
    return f'{{"{CRC}":{_crc(text, segment, step)},{text[1:].decode()}'


def intact_state(state: Mapping[str, Any], segment: int | None, step: int | None) -> dict[str, Any] | None:
    """The contents of a stored state; None where they are not as saved."""
    said = {name: value for name, value in state.items() if name != CRC}
    try:
        is_intact = state.get(CRC) == _crc(orjson.dumps(said), segment, step)
    except TypeError:  # text or numbers that none of ours has
        is_intact = False
    return said if is_intact else None


def _crc(text: bytes, segment: int | None, step: int | None) -> int:
    return zlib.crc32(f"{segment} {step}".encode(), zlib.crc32(text))


class DetectionState(Base):
    """A saved state of a run's detection. Before it is used, it is fed the steps that were stored since."""

    __tablename__ = "detection_states"

    run_pk: Mapped[OnlyOfRun]
    state: Mapped[JsonDict]
    segment: Mapped[int | None]
    """The segment that it follows; NULL in a state that has seen all stored steps."""
    seen_step: Mapped[BigInt | None]
    """The last step of that segment which it has seen, or skipped; NULL before the first."""


class DetectorSnapshot(Base):
    """The state of the detectors after `step` of `segment`: after a fork they are fed the steps from there on."""

    __tablename__ = "detector_snapshots"

    run_pk: Mapped[OnlyOfRun]
    segment: Mapped[KeyPart]
    step: Mapped[BigKeyPart]
    state: Mapped[JsonDict]


class RunSetting(Base):
    """A value that a search of runs compares (see db.run_settings)."""

    __tablename__ = "run_settings"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it from the class

    run_pk: Mapped[OnlyOfRun]
    key: Mapped[Str256] = mapped_column(primary_key=True)
    """The last component of the name."""
    name: Mapped[Str256] = mapped_column(primary_key=True)
    """`config.` and the path of a setting, or `tag`, or `device`."""
    position: Mapped[KeyPart]
    """Number of the value among those of the name."""
    text: Mapped[LongText | None]
    """The text, or `true`, `false` or `null`."""
    number: Mapped[float | None]


class Metric(Base):
    """The name of a metric of a run, numbered within the run in the order of first reports."""

    __tablename__ = "metrics"
    __table_args__ = (UniqueConstraint("run_pk", "name"),)

    run_pk: Mapped[OnlyOfRun]
    number: Mapped[KeyPart]
    name: Mapped[Str128] = mapped_column(index=True)


class Rollup(Base):
    """A metric over one bucket of a segment's steps (see db.steps.rollups). No number in it is NaN or infinite."""

    __tablename__ = "rollups"
    __table_args__ = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        "sqlite_with_rowid": False,
        "postgresql_partition_by": "RANGE (run_pk)",
    }

    run_pk: Mapped[KeyPart]
    segment: Mapped[KeyPart]
    metric: Mapped[KeyPart]
    """`Metric.number`"""
    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    start: Mapped[BigKeyPart]
    """The multiple of the level's width at which the bucket begins."""
    first_step: Mapped[BigInt]
    last_step: Mapped[BigInt]
    count: Mapped[BigInt]
    """Number of finite values. min, max, mean, first and last are those of the finite values, NULL without any."""
    non_finite: Mapped[BigInt]
    min: Mapped[float | None]
    max: Mapped[float | None]
    mean: Mapped[float | None]
    first: Mapped[float | None]
    last: Mapped[float | None]


class MlflowExperiment(Base):
    """An experiment that an MLflow client has created: the project of its runs, by a number."""

    __tablename__ = "mlflow_experiments"

    id: Mapped[Key]
    name: Mapped[Str128] = mapped_column(unique=True)
    tags: Mapped[JsonDict]
    created_at: Mapped[Time]


class MlflowRun(Base):
    """Values that an MLflow client logged of its run besides the steps."""

    __tablename__ = "mlflow_runs"

    run_pk: Mapped[OnlyOfRun]
    experiment: Mapped[int] = mapped_column(index=True)
    """`MlflowExperiment.id`; 0 is the default experiment, which is not stored."""
    user: Mapped[Str256]
    params: Mapped[JsonDict]
    tags: Mapped[JsonDict]
    inputs: Mapped[list[Any]]
    """Data sets, as the client sent them."""
    state: Mapped[JsonDict]
    """Rows that are not complete yet, see `monitor.ingestion.open_rows`, and the last value of every metric."""
    has_open_rows: Mapped[bool] = mapped_column(default=False, index=True)


class PolicyLayer(Base):
    """Values of the policy that are set for the collector, for a project or for a run: see `db/records/policies.py`."""

    __tablename__ = "policy_layers"

    key: Mapped[str] = mapped_column(String(160), primary_key=True)
    run_pk: Mapped[int | None] = mapped_column(ForeignKey("runs.pk", ondelete="CASCADE"), unique=True)
    fields: Mapped[JsonDict] = mapped_column(RuleObject())
    """Fields that are set, as `monitor.detection.Policy` names them; under `detection` those of the detection."""
    changed_at: Mapped[Time]
    changed_by: Mapped[Author]
    by_operator: Mapped[bool]
    """True if an operator set it; what a loop says counts until then."""


class Retention(Base):
    """Time for which the ended runs of a project are kept."""

    __tablename__ = "retentions"

    project: Mapped[Str128] = mapped_column(primary_key=True)
    days: Mapped[float | None]
    """NULL: for good."""
    changed_at: Mapped[Time]


class Token(Base):
    """A bearer token; only its digest is stored. Revoked tokens stay, so that the audit trail can name them."""

    __tablename__ = "tokens"

    id: Mapped[Key]
    name: Mapped[Str128] = mapped_column(unique=True)
    digest: Mapped[Str64] = mapped_column(unique=True)
    """SHA-256 of the token in hexadecimal; the token is 256 random bits, so no salt is needed."""
    scopes: Mapped[Texts]
    project: Mapped[Str128 | None]
    """The only project that it permits; NULL for all."""
    run: Mapped[Str128 | None]
    """The id of the only run that it permits; NULL for all."""
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]


class Audit(Base):
    """An entry of the audit trail: who did what. It stays when its run is deleted."""

    __tablename__ = "audit"

    id: Mapped[Key]
    at: Mapped[float]
    who: Mapped[Author]
    """A person and the token that acted for them, or a token, or a command."""
    action: Mapped[Str64]
    run: Mapped[Str128 | None] = mapped_column(index=True)
    details: Mapped[JsonDict]


class PreflightAnswer(Base):
    """Last answer of the trainer about the rollback of a run that waits for approval (`db/records/preflights.py`)."""

    __tablename__ = "preflights"

    run_pk: Mapped[OnlyOfRun]
    intervention: Mapped[int]
    """Number of the intervention within the run."""
    num_answers: Mapped[int]
    """About this intervention, so far."""
    answered_at: Mapped[Time]
    """Time of the answer, by the collector's clock."""
    answer: Mapped[JsonDict]
    """`lossguard.vocabulary.wire.Answer` with the terms of an order: `order_seconds` and `order_steps`."""
