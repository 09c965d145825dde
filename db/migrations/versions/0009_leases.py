"""The lease of a run, tokens for one run, and an index for the newest segment

Why: two processes with one run id both carried out its orders. Now one of them holds the lease. And opening a segment
read all segments of the run. The previous release ignores the columns.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: that would make the table anew on SQLite, and dropping the old one takes along all that refers to
    # it.
    op.add_column("runs", sa.Column("lease_writer", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("lease_session", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("lease_process", sa.String(length=256), nullable=True))
    op.add_column("runs", sa.Column("lease_until", sa.Float(precision=53), nullable=True))
    op.add_column("tokens", sa.Column("run", sa.String(length=128), nullable=True))
    op.create_index("ix_segments_run_pk_opened_at", "segments", ["run_pk", "opened_at", "number"])


def downgrade() -> None:
    op.drop_index("ix_segments_run_pk_opened_at", "segments")
    op.drop_column("tokens", "run")
    for name in ("lease_until", "lease_process", "lease_session", "lease_writer"):
        op.drop_column("runs", name)
