"""The schema of Lossguard 1.0

Why: the baseline. Every later migration starts from here, and its downgrade leads back to here.

Revision: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

compatible_from = "0001"

COMPRESSED = {"step_blocks": ("steps", "times"), "block_values": ("values", "reported")}
"""Columns that PostgreSQL must not compress once more."""
METADATA = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
FLOAT, JSON = sa.Float(53), sa.JSON(none_as_null=True)


def upgrade() -> None:
    METADATA.create_all(op.get_bind(), checkfirst=False)
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in COMPRESSED.items():
            for column in columns:
                op.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" SET STORAGE EXTERNAL')


def downgrade() -> None:
    METADATA.drop_all(op.get_bind(), checkfirst=False)


def _table(name: str, *parts: sa.schema.SchemaItem, unique: tuple[str, ...] = (), **options: Any) -> None:
    table = sa.Table(name, METADATA, *parts, **options)
    if unique:
        table.append_constraint(sa.UniqueConstraint(*unique))


def _key(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True)


def _needed(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def _of_run(**options: Any) -> sa.Column[Any]:
    return _needed("run_pk", sa.ForeignKey("runs.pk", ondelete="CASCADE"), **options)


_table(
    "audit",
    _key("id", sa.Integer),
    _needed("at", FLOAT),
    _needed("who", sa.String(320)),
    _needed("action", sa.String(64)),
    sa.Column("run", sa.String(128), index=True),
    _needed("details", JSON),
)
_table(
    "block_values",
    _key("run_pk", sa.Integer),
    _key("segment", sa.Integer),
    _key("metric", sa.Integer),
    _key("first_step", sa.BigInteger),
    _needed("values", sa.LargeBinary),
    sa.Column("reported", sa.LargeBinary),
    postgresql_partition_by="RANGE (run_pk)",
)
_table(
    "leaders",
    _key("role", sa.String(32)),
    _needed("holder", sa.String(64)),
    _needed("term", sa.BigInteger),
    _needed("until", FLOAT),
    _needed("since", FLOAT),
)
_table(
    "mlflow_experiments",
    _key("id", sa.Integer),
    _needed("name", sa.String(128), unique=True),
    _needed("tags", JSON),
    _needed("created_at", FLOAT),
)
_table(
    "retentions",
    _key("project", sa.String(128)),
    sa.Column("days", FLOAT),
    _needed("changed_at", FLOAT),
)
_table(
    "rollups",
    _key("run_pk", sa.Integer),
    _key("segment", sa.Integer),
    _key("metric", sa.Integer),
    _key("level", sa.SmallInteger),
    _key("start", sa.BigInteger),
    _needed("first_step", sa.BigInteger),
    _needed("last_step", sa.BigInteger),
    _needed("count", sa.BigInteger),
    _needed("non_finite", sa.BigInteger),
    sa.Column("min", FLOAT),
    sa.Column("max", FLOAT),
    sa.Column("mean", FLOAT),
    sa.Column("first", FLOAT),
    sa.Column("last", FLOAT),
    postgresql_partition_by="RANGE (run_pk)",
    sqlite_with_rowid=False,
)
_table(
    "runs",
    _key("pk", sa.Integer),
    _needed("id", sa.String(128), unique=True),
    _needed("project", sa.String(128), index=True),
    sa.Column("name", sa.String(256)),
    _needed("state", sa.String(16), index=True),
    _needed("config", JSON),
    sa.Column("command", sa.Text),
    sa.Column("git_commit", sa.String(64)),
    sa.Column("host", sa.String(256)),
    _needed("devices", JSON),
    _needed("versions", JSON),
    _needed("capabilities", JSON),
    sa.Column("policy", JSON),
    sa.Column("tags", JSON),
    sa.Column("note", sa.Text),
    sa.Column("archived_at", FLOAT),
    sa.Column("total_steps", sa.BigInteger),
    _needed("restorable_steps", JSON),
    sa.Column("restorable_tiers", JSON),
    _needed("started_at", FLOAT),
    _needed("last_report_at", FLOAT),
    sa.Column("finished_at", FLOAT),
    sa.Column("lease_writer", sa.String(64)),
    sa.Column("lease_session", sa.String(64)),
    sa.Column("lease_process", sa.String(256)),
    sa.Column("lease_until", FLOAT),
    _needed("revision", sa.BigInteger, server_default="0"),
    sa.Index("ix_runs_started_at", "started_at", "pk"),
    postgresql_with={"fillfactor": 70},
)
_table(
    "schema_compatibility",
    _key("compatible_from", sa.String(32)),
)
_table(
    "step_blocks",
    _key("run_pk", sa.Integer),
    _key("segment", sa.Integer),
    _key("first_step", sa.BigInteger),
    _needed("last_step", sa.BigInteger),
    _needed("num_steps", sa.Integer),
    sa.Column("steps", sa.LargeBinary),
    _needed("times", sa.LargeBinary),
    sa.Column("archived_file", sa.Integer),
    postgresql_partition_by="RANGE (run_pk)",
)
_table(
    "tokens",
    _key("id", sa.Integer),
    _needed("name", sa.String(128), unique=True),
    _needed("digest", sa.String(64), unique=True),
    _needed("scopes", JSON),
    sa.Column("project", sa.String(128)),
    sa.Column("run", sa.String(128)),
    _needed("created_at", FLOAT),
    sa.Column("revoked_at", FLOAT),
)
_table(
    "archived_files",
    _key("id", sa.Integer),
    sa.Column("run_pk", sa.ForeignKey("runs.pk", ondelete="SET NULL"), index=True),
    _needed("run", sa.String(128)),
    _needed("state", sa.String(16), index=True),
    _needed("place", sa.Text),
    _needed("name", sa.Text),
    _needed("segment", sa.Integer),
    _needed("first_step", sa.BigInteger),
    _needed("last_step", sa.BigInteger),
    _needed("num_steps", sa.BigInteger),
    _needed("num_bytes", sa.BigInteger),
    _needed("sha256", sa.String(64)),
    _needed("changed_at", FLOAT),
    sa.Column("complete_at_revision", sa.BigInteger),
    sqlite_autoincrement=True,
)
_table(
    "detector_snapshots",
    _of_run(primary_key=True),
    _key("segment", sa.Integer),
    _key("step", sa.BigInteger),
    _needed("state", JSON),
)
_table(
    "events",
    _key("id", sa.Integer),
    _of_run(),
    _needed("key", sa.String(128)),
    _needed("segment", sa.Integer),
    sa.Column("step", sa.BigInteger),
    _needed("time", FLOAT),
    _needed("kind", sa.String(64)),
    _needed("details", JSON),
    unique=("run_pk", "key"),
)
_table(
    "hardware_samples",
    _key("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite")),
    _of_run(),
    _needed("time", FLOAT),
    sa.Column("step", sa.BigInteger),
    _needed("host", sa.String(256)),
    _needed("device", sa.String(32)),
    _needed("num_errors", sa.BigInteger),
    _needed("readings", JSON),
    unique=("run_pk", "time", "host", "device"),
)
_table(
    "incidents",
    _key("id", sa.Integer),
    _of_run(),
    _needed("number", sa.Integer),
    _needed("segment", sa.Integer),
    _needed("kind", sa.String(32)),
    _needed("state", sa.String(32)),
    _needed("signal", sa.String(64)),
    _needed("onset_step", sa.BigInteger),
    _needed("detected_step", sa.BigInteger),
    sa.Column("peak_step", sa.BigInteger),
    sa.Column("end_step", sa.BigInteger),
    sa.Column("score", FLOAT),
    sa.Column("outcome", sa.String(32)),
    _needed("details", JSON),
    sa.Column("verdict", JSON),
    _needed("opened_at", FLOAT),
    _needed("changed_at", FLOAT),
    unique=("run_pk", "number"),
)
_table(
    "interventions",
    _key("id", sa.Integer),
    _of_run(),
    _needed("number", sa.Integer),
    sa.Column("incident", sa.Integer),
    _needed("kind", sa.String(16)),
    _needed("state", sa.String(32)),
    _needed("attempt", sa.Integer),
    sa.Column("rewind_to", sa.BigInteger),
    sa.Column("skip_from", sa.BigInteger),
    sa.Column("skip_to", sa.BigInteger),
    sa.Column("lr_scale", FLOAT),
    sa.Column("remedies", JSON),
    _needed("details", JSON),
    _needed("created_at", FLOAT),
    _needed("changed_at", FLOAT),
    unique=("run_pk", "number"),
)
_table(
    "metrics",
    _of_run(primary_key=True),
    _key("number", sa.Integer),
    _needed("name", sa.String(128), index=True),
    unique=("run_pk", "name"),
)
_table(
    "mlflow_runs",
    _of_run(primary_key=True),
    _needed("experiment", sa.Integer, index=True),
    _needed("user", sa.String(256)),
    _needed("params", JSON),
    _needed("tags", JSON),
    _needed("inputs", JSON),
    _needed("state", JSON),
    _needed("has_open_rows", sa.Boolean, index=True),
)
_table(
    "orders",
    _key("id", sa.Integer),
    _of_run(),
    _needed("key", sa.String(32)),
    _needed("intervention", sa.Integer),
    _needed("kind", sa.String(16)),
    _needed("state", sa.String(16)),
    sa.Column("incident", sa.Integer),
    sa.Column("rewind_to", sa.BigInteger),
    sa.Column("skip_from", sa.BigInteger),
    sa.Column("skip_to", sa.BigInteger),
    sa.Column("lr_scale", FLOAT),
    sa.Column("remedies", JSON),
    _needed("reason", sa.Text),
    sa.Column("rewound_to", sa.BigInteger),
    sa.Column("detail", sa.Text),
    sa.Column("segment", sa.String(128)),
    sa.Column("step", sa.BigInteger),
    sa.Column("expires_at", FLOAT),
    sa.Column("expires_step", sa.BigInteger),
    sa.Column("approved_by", sa.String(320)),
    sa.Column("signature", sa.String(64)),
    sa.Column("refusal", sa.String(16)),
    _needed("created_at", FLOAT),
    sa.Column("answered_at", FLOAT),
    unique=("run_pk", "intervention"),
)
_table(
    "policy_layers",
    _key("key", sa.String(160)),
    sa.Column("run_pk", sa.ForeignKey("runs.pk", ondelete="CASCADE")),
    _needed("fields", JSON),
    _needed("changed_at", FLOAT),
    _needed("changed_by", sa.String(320)),
    _needed("by_operator", sa.Boolean),
    unique=("run_pk",),
)
_table(
    "preflights",
    _of_run(primary_key=True),
    _needed("intervention", sa.Integer),
    _needed("num_answers", sa.Integer),
    _needed("answered_at", FLOAT),
    _needed("answer", JSON),
)
_table(
    "pulses",
    _of_run(primary_key=True),
    sa.Column("step", sa.BigInteger),
    _needed("stepped_at", FLOAT),
    sa.Column("expected_by", FLOAT),
    sa.Column("undelivered_bytes", sa.BigInteger),
    _needed("nonfinite_steps", sa.BigInteger),
    _needed("skipped_steps", sa.BigInteger),
    _needed("newest", JSON),
    sa.Column("losses", JSON),
    _needed("peaks", JSON),
    _needed("beats", JSON),
    sa.Column("stall_after", FLOAT),
    sa.Column("report_gaps", JSON),
    postgresql_with={"fillfactor": 45},
)
_table(
    "run_settings",
    _of_run(primary_key=True),
    _key("key", sa.String(256)),
    _key("name", sa.String(256)),
    _key("position", sa.Integer),
    sa.Column("text", sa.Text),
    sa.Column("number", FLOAT),
    sqlite_with_rowid=False,
)
_table(
    "segments",
    _of_run(primary_key=True),
    _key("number", sa.Integer),
    sa.Column("parent", sa.Integer),
    sa.Column("fork_step", sa.BigInteger),
    _needed("key", sa.String(128)),
    _needed("reason", sa.String(16)),
    sa.Column("order_id", sa.Integer),
    _needed("opened_at", FLOAT),
    _needed("live_order", sa.Integer),
    sa.Column("writer", sa.String(32)),
    sa.Column("first_step", sa.BigInteger),
    sa.Column("last_step", sa.BigInteger),
    _needed("num_steps", sa.BigInteger),
    _needed("num_packed", sa.BigInteger, server_default="0"),
    unique=("run_pk", "key"),
    postgresql_with={"fillfactor": 70},
)
_table(
    "arms",
    _of_run(primary_key=True),
    _key("intervention", sa.Integer),
    _key("arm", sa.String(32)),
    _needed("incident", sa.Integer),
    _needed("details", JSON),
)
_table(
    "step_notes",
    _key("id", sa.Integer),
    _of_run(index=True),
    _needed("step", sa.BigInteger),
    _needed("text", sa.Text),
    _needed("author", sa.String(320)),
    _needed("created_at", FLOAT),
    sqlite_autoincrement=True,
)
_table(
    "steps",
    _of_run(primary_key=True),
    _key("segment", sa.Integer),
    _key("step", sa.BigInteger),
    _needed("time", FLOAT),
    _needed("values", sa.LargeBinary),
    sqlite_with_rowid=False,
)
_table(
    "detection_states",
    _of_run(primary_key=True),
    _needed("state", JSON),
    sa.Column("segment", sa.Integer),
    sa.Column("seen_step", sa.BigInteger),
)
_table(
    "skip_ledger",
    _key("id", sa.Integer),
    _of_run(),
    _needed("skip_from", sa.BigInteger),
    _needed("skip_to", sa.BigInteger),
    sa.Column("order_id", sa.ForeignKey("orders.id", ondelete="SET NULL")),
    _needed("reason", sa.Text),
    _needed("created_at", FLOAT),
    unique=("order_id",),
)
