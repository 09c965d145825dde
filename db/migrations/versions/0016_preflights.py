"""What the trainer last answered about a rollback that waits for approval

Why: before a person approves it, the page, the alert and the command say whether it could be carried out. The previous
release ignores the table.

Revision: 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
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


def downgrade() -> None:
    op.drop_table("preflights")
