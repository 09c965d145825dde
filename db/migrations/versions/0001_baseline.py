"""The schema of Lossguard 1.0

Why: the baseline. Every later migration starts from here, and its downgrade leads back to here.

Revision: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

compatible_from = "0001"

COMPRESSED = {"step_blocks": ("steps", "times"), "block_values": ("values", "reported")}
"""Columns that PostgreSQL must not compress once more."""


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("who", sa.String(length=320), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("run", sa.String(length=128), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_run"), "audit", ["run"])
    op.create_table(
        "block_values",
        sa.Column("run_pk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.Column("reported", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("run_pk", "segment", "metric", "first_step", name=op.f("pk_block_values")),
        postgresql_partition_by="RANGE (run_pk)",
    )
    op.create_table(
        "leaders",
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.Float(precision=53), nullable=False),
        sa.Column("since", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leaders")),
    )
    op.create_table(
        "mlflow_experiments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mlflow_experiments")),
        sa.UniqueConstraint("name", name=op.f("uq_mlflow_experiments_name")),
    )
    op.create_table(
        "retentions",
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("days", sa.Float(precision=53), nullable=True),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_retentions")),
    )
    op.create_table(
        "rollups",
        sa.Column("run_pk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("non_finite", sa.BigInteger(), nullable=False),
        sa.Column("min", sa.Float(precision=53), nullable=True),
        sa.Column("max", sa.Float(precision=53), nullable=True),
        sa.Column("mean", sa.Float(precision=53), nullable=True),
        sa.Column("first", sa.Float(precision=53), nullable=True),
        sa.Column("last", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("run_pk", "segment", "metric", "level", "start", name=op.f("pk_rollups")),
        postgresql_partition_by="RANGE (run_pk)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "runs",
        sa.Column("pk", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("config", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("command", sa.Text(), nullable=True),
        sa.Column("git_commit", sa.String(length=64), nullable=True),
        sa.Column("host", sa.String(length=256), nullable=True),
        sa.Column("devices", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("versions", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("capabilities", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("policy", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("archived_at", sa.Float(precision=53), nullable=True),
        sa.Column("total_steps", sa.BigInteger(), nullable=True),
        sa.Column("restorable_steps", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("restorable_tiers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("started_at", sa.Float(precision=53), nullable=False),
        sa.Column("last_report_at", sa.Float(precision=53), nullable=False),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.Column("lease_writer", sa.String(length=64), nullable=True),
        sa.Column("lease_session", sa.String(length=64), nullable=True),
        sa.Column("lease_process", sa.String(length=256), nullable=True),
        sa.Column("lease_until", sa.Float(precision=53), nullable=True),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_runs")),
        sa.UniqueConstraint("id", name=op.f("uq_runs_id")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(op.f("ix_runs_project"), "runs", ["project"])
    op.create_index("ix_runs_started_at", "runs", ["started_at", "pk"])
    op.create_index(op.f("ix_runs_state"), "runs", ["state"])
    op.create_table(
        "schema_compatibility",
        sa.Column("compatible_from", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("compatible_from", name=op.f("pk_schema_compatibility")),
    )
    op.create_table(
        "step_blocks",
        sa.Column("run_pk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("num_steps", sa.Integer(), nullable=False),
        sa.Column("steps", sa.LargeBinary(), nullable=True),
        sa.Column("times", sa.LargeBinary(), nullable=False),
        sa.Column("archived_file", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("run_pk", "segment", "first_step", name=op.f("pk_step_blocks")),
        postgresql_partition_by="RANGE (run_pk)",
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=True),
        sa.Column("run", sa.String(length=128), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("revoked_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
        sa.UniqueConstraint("name", name=op.f("uq_tokens_name")),
    )
    op.create_table(
        "archived_files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=True),
        sa.Column("run", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("num_steps", sa.BigInteger(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.Column("complete_at_revision", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_pk"], ["runs.pk"], name=op.f("fk_archived_files_run_pk_runs"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archived_files")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_archived_files_run_pk"), "archived_files", ["run_pk"])
    op.create_index(op.f("ix_archived_files_state"), "archived_files", ["state"])
    op.create_table(
        "detector_snapshots",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_pk"], ["runs.pk"], name=op.f("fk_detector_snapshots_run_pk_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_pk", "segment", "step", name=op.f("pk_detector_snapshots")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_events_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("run_pk", "key", name=op.f("uq_events_run_pk_key")),
    )
    op.create_table(
        "hardware_samples",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("host", sa.String(length=256), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("num_errors", sa.BigInteger(), nullable=False),
        sa.Column("readings", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_pk"], ["runs.pk"], name=op.f("fk_hardware_samples_run_pk_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hardware_samples")),
        sa.UniqueConstraint(
            "run_pk", "time", "host", "device", name=op.f("uq_hardware_samples_run_pk_time_host_device")
        ),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("signal", sa.String(length=64), nullable=False),
        sa.Column("onset_step", sa.BigInteger(), nullable=False),
        sa.Column("detected_step", sa.BigInteger(), nullable=False),
        sa.Column("peak_step", sa.BigInteger(), nullable=True),
        sa.Column("end_step", sa.BigInteger(), nullable=True),
        sa.Column("score", sa.Float(precision=53), nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("opened_at", sa.Float(precision=53), nullable=False),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_incidents_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
        sa.UniqueConstraint("run_pk", "number", name=op.f("uq_incidents_run_pk_number")),
    )
    op.create_table(
        "interventions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("incident", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("rewind_to", sa.BigInteger(), nullable=True),
        sa.Column("skip_from", sa.BigInteger(), nullable=True),
        sa.Column("skip_to", sa.BigInteger(), nullable=True),
        sa.Column("lr_scale", sa.Float(precision=53), nullable=True),
        sa.Column("remedies", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_interventions_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interventions")),
        sa.UniqueConstraint("run_pk", "number", name=op.f("uq_interventions_run_pk_number")),
    )
    op.create_table(
        "metrics",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_metrics_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "number", name=op.f("pk_metrics")),
        sa.UniqueConstraint("run_pk", "name", name=op.f("uq_metrics_run_pk_name")),
    )
    op.create_index(op.f("ix_metrics_name"), "metrics", ["name"])
    op.create_table(
        "mlflow_runs",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("experiment", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(length=256), nullable=False),
        sa.Column("params", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("inputs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("has_open_rows", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_mlflow_runs_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_mlflow_runs")),
    )
    op.create_index(op.f("ix_mlflow_runs_experiment"), "mlflow_runs", ["experiment"])
    op.create_index(op.f("ix_mlflow_runs_has_open_rows"), "mlflow_runs", ["has_open_rows"])
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("intervention", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("incident", sa.Integer(), nullable=True),
        sa.Column("rewind_to", sa.BigInteger(), nullable=True),
        sa.Column("skip_from", sa.BigInteger(), nullable=True),
        sa.Column("skip_to", sa.BigInteger(), nullable=True),
        sa.Column("lr_scale", sa.Float(precision=53), nullable=True),
        sa.Column("remedies", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rewound_to", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("segment", sa.String(length=128), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.Float(precision=53), nullable=True),
        sa.Column("expires_step", sa.BigInteger(), nullable=True),
        sa.Column("approved_by", sa.String(length=320), nullable=True),
        sa.Column("signature", sa.String(length=64), nullable=True),
        sa.Column("refusal", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("answered_at", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_orders_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("run_pk", "intervention", name=op.f("uq_orders_run_pk_intervention")),
    )
    op.create_table(
        "policy_layers",
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=True),
        sa.Column("fields", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.Column("changed_by", sa.String(length=320), nullable=False),
        sa.Column("by_operator", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_policy_layers_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_policy_layers")),
        sa.UniqueConstraint("run_pk", name=op.f("uq_policy_layers_run_pk")),
    )
    op.create_table(
        "preflights",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("intervention", sa.Integer(), nullable=False),
        sa.Column("num_answers", sa.Integer(), nullable=False),
        sa.Column("answered_at", sa.Float(precision=53), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_preflights_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_preflights")),
    )
    op.create_table(
        "pulses",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("stepped_at", sa.Float(precision=53), nullable=False),
        sa.Column("expected_by", sa.Float(precision=53), nullable=True),
        sa.Column("undelivered_bytes", sa.BigInteger(), nullable=True),
        sa.Column("nonfinite_steps", sa.BigInteger(), nullable=False),
        sa.Column("skipped_steps", sa.BigInteger(), nullable=False),
        sa.Column("newest", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("losses", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("peaks", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("beats", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("stall_after", sa.Float(precision=53), nullable=True),
        sa.Column("report_gaps", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_pulses_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_pulses")),
        postgresql_with={"fillfactor": 45},
    )
    op.create_table(
        "run_settings",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("number", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_run_settings_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "key", "name", "position", name=op.f("pk_run_settings")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "segments",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("fork_step", sa.BigInteger(), nullable=True),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("order_id", sa.Integer(), nullable=True),
        sa.Column("opened_at", sa.Float(precision=53), nullable=False),
        sa.Column("live_order", sa.Integer(), nullable=False),
        sa.Column("writer", sa.String(length=32), nullable=True),
        sa.Column("first_step", sa.BigInteger(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("num_steps", sa.BigInteger(), nullable=False),
        sa.Column("num_packed", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_segments_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "number", name=op.f("pk_segments")),
        sa.UniqueConstraint("run_pk", "key", name=op.f("uq_segments_run_pk_key")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "arms",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("intervention", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(length=32), nullable=False),
        sa.Column("incident", sa.Integer(), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_arms_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "intervention", "arm", name=op.f("pk_arms")),
    )
    op.create_table(
        "step_notes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=320), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_step_notes_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_step_notes")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_step_notes_run_pk"), "step_notes", ["run_pk"])
    op.create_table(
        "steps",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_steps_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "segment", "step", name=op.f("pk_steps")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "detection_states",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=True),
        sa.Column("seen_step", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_pk"], ["runs.pk"], name=op.f("fk_detection_states_run_pk_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_detection_states")),
    )
    op.create_table(
        "skip_ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("skip_from", sa.BigInteger(), nullable=False),
        sa.Column("skip_to", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_skip_ledger_order_id_orders"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_skip_ledger_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_skip_ledger")),
        sa.UniqueConstraint("order_id", name=op.f("uq_skip_ledger_order_id")),
    )
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in COMPRESSED.items():
            for column in columns:
                op.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" SET STORAGE EXTERNAL')


def downgrade() -> None:
    op.drop_table("skip_ledger")
    op.drop_table("detection_states")
    op.drop_table("steps")
    op.drop_table("step_notes")
    op.drop_table("arms")
    op.drop_table("segments")
    op.drop_table("run_settings")
    op.drop_table("pulses")
    op.drop_table("preflights")
    op.drop_table("policy_layers")
    op.drop_table("orders")
    op.drop_table("mlflow_runs")
    op.drop_table("metrics")
    op.drop_table("interventions")
    op.drop_table("incidents")
    op.drop_table("hardware_samples")
    op.drop_table("events")
    op.drop_table("detector_snapshots")
    op.drop_table("archived_files")
    op.drop_table("tokens")
    op.drop_table("step_blocks")
    op.drop_table("schema_compatibility")
    op.drop_table("runs")
    op.drop_table("rollups")
    op.drop_table("retentions")
    op.drop_table("mlflow_experiments")
    op.drop_table("leaders")
    op.drop_table("block_values")
    op.drop_table("audit")
