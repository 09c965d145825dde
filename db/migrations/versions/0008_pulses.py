"""How every run is doing right now

Why: /metrics must not miss a spike of one step between two scrapes, must tell a hung loop from a planned pause, and
must
not read the steps of every run for it.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
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
        sa.Column("peaks", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("beats", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_pulses_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_pulses")),
    )


def downgrade() -> None:
    op.drop_table("pulses")
