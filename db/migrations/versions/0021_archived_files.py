"""Files of archived steps

Why: the values of ended runs can be moved to Parquet files outside the store. A row says where a file is, and outlives
its run until the file is removed. A block says which file has its values (`step_blocks.archived_file`, of 0020 already,
whose downgrade reads the blocks); its steps and times stay.

Revision: 0021, after 0020
"""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
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


def downgrade() -> None:
    # The files alone have these steps, and the older schema would not know where they are.
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM archived_files WHERE state = 'kept' AND run_pk IS NOT NULL")):
        raise CommandError("steps are archived outside the store; bring them back first: python -m db unarchive --all")
    op.drop_table("archived_files")
