"""Roll-ups of every metric, and the names of a run's metrics

Why: a chart of a long run read every step. Now ingestion keeps min, max, mean, first, last and counts per bucket, and
what is stored already is filled in here.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.orm import Session

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metrics",
        sa.Column("run_pk", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_metrics_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "number", name=op.f("pk_metrics")),
        sa.UniqueConstraint("run_pk", "name", name=op.f("uq_metrics_run_pk_name")),
    )
    op.create_table(
        "rollups",
        sa.Column("run_pk", sa.Integer(), nullable=False),
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
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_rollups_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_pk", "segment", "metric", "level", "start", name=op.f("pk_rollups")),
        sqlite_with_rowid=False,
    )
    # Two tables that only this revision brings, filled by code that reads rows of steps and nothing of later revisions.
    from db.steps.filling import fill_in

    with Session(op.get_bind(), join_transaction_mode="create_savepoint") as session:
        fill_in(session)
        session.commit()


def downgrade() -> None:
    op.drop_table("rollups")
    op.drop_table("metrics")
