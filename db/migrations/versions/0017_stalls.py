"""The leader of the collectors, and what tells a stall

Why: one of several collectors looks for runs without new steps. The previous release ignores the table and the columns.

Revision: 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leaders",
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.Float(precision=53), nullable=False),
        sa.Column("since", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leaders")),
    )
    op.add_column("pulses", sa.Column("stall_after", sa.Float(precision=53), nullable=True))
    op.add_column("pulses", sa.Column("report_gaps", sa.JSON(none_as_null=True), nullable=True))
    op.create_index(op.f("ix_runs_state"), "runs", ["state"])


def downgrade() -> None:
    op.drop_index(op.f("ix_runs_state"), "runs")
    op.drop_column("pulses", "report_gaps")
    op.drop_column("pulses", "stall_after")
    op.drop_table("leaders")
