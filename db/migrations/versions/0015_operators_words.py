"""What people write of a run: its tags, a note, that it is archived; how long a project keeps its runs; longer authors

Why: hundreds of runs need names that are found again, and an author is a person and the token of the dashboard. The
previous release ignores the columns and the table.

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: see 0011.
    op.add_column("runs", sa.Column("tags", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("runs", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("archived_at", sa.Float(precision=53), nullable=True))
    op.create_table(
        "retentions",
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("days", sa.Float(precision=53), nullable=True),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_retentions")),
    )
    with op.batch_alter_table("audit") as audit:
        audit.alter_column("who", type_=sa.String(length=320), existing_nullable=False)


def downgrade() -> None:
    op.execute("UPDATE audit SET who = substr(who, 1, 128)")
    with op.batch_alter_table("audit") as audit:
        audit.alter_column("who", type_=sa.String(length=128), existing_nullable=False)
    op.drop_table("retentions")
    for column in ("archived_at", "note", "tags"):
        op.drop_column("runs", column)
