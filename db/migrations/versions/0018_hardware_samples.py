"""Samples of the hardware

Why: what the GPUs and the machine of a run did, beside its steps. The previous release ignores the table.

Revision: 0018, after 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
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


def downgrade() -> None:
    op.drop_table("hardware_samples")
