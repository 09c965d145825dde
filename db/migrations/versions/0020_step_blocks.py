"""Steps in blocks

Why: a row of a step is mostly its header and its key. Hundreds of steps, metric by metric and compressed, are a fifth
of that, and one metric is read without the others. What is stored already stays rows; `python -m db pack` packs it.

A collector of the previous release does not see blocks. So they are written once the feature `blocks` is on: at once in
SQLite and in an empty store, else by `python -m db pack --enable`.

Revision: 0020, after 0019
"""

import time

import sqlalchemy as sa
from alembic import op
from sqlalchemy.orm import Session

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

BYTES = {"step_blocks": ("steps", "times"), "block_values": ("values", "reported")}


def upgrade() -> None:
    op.create_table(
        "step_blocks",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("num_steps", sa.Integer(), nullable=False),
        sa.Column("steps", sa.LargeBinary(), nullable=True),
        sa.Column("times", sa.LargeBinary(), nullable=False),
        sa.Column("archived_file", sa.Integer(), nullable=True),  # used from 0021 on, but the way back reads it here
        sa.PrimaryKeyConstraint("run_pk", "segment", "first_step", name=op.f("pk_step_blocks")),
        postgresql_partition_by="RANGE (run_pk)",
    )
    op.create_table(
        "block_values",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.Column("reported", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("run_pk", "segment", "metric", "first_step", name=op.f("pk_block_values")),
        postgresql_partition_by="RANGE (run_pk)",
    )
    op.create_table(
        "features",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("enabled_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_features")),
    )
    if _is_postgresql():
        _store_as_they_are()
    if not _is_postgresql() or op.get_bind().scalar(sa.text("SELECT count(*) FROM runs")) == 0:
        op.get_bind().execute(sa.text("INSERT INTO features VALUES ('blocks', :now)"), {"now": time.time()})
    # The only existing table comes last: it is locked until the end.
    op.add_column("segments", sa.Column("has_blocks", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("segments", sa.Column("num_packed", sa.BigInteger(), server_default="0", nullable=False))


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _store_as_they_are() -> None:
    for table, columns in BYTES.items():
        for column in columns:  # they are compressed already
            op.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" SET STORAGE EXTERNAL')


def downgrade() -> None:
    # Only this revision brings the blocks, so the code that reads them makes rows of them again.
    from db.steps.unpacking import unpack_all

    with Session(op.get_bind(), join_transaction_mode="create_savepoint") as session:
        unpack_all(session)
        session.commit()
    op.drop_table("features")
    op.drop_table("block_values")
    op.drop_table("step_blocks")
    with op.batch_alter_table("segments") as batch:
        batch.drop_column("num_packed")
        batch.drop_column("has_blocks")
