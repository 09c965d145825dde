"""Revisions of runs, and up to where a Watch has seen

Why: a collector keeps what it knows of a run between two reports. The revision tells whether anybody else has touched
the run meanwhile; and the state of the detection need not be written with every step, when it says which it has seen.

Revision: 0007, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: that would make the table anew on SQLite, and dropping the old one takes along all that refers to
    # it.
    op.add_column("runs", sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("watch_states", sa.Column("segment", sa.Integer(), nullable=True))
    op.add_column("watch_states", sa.Column("seen_step", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("watch_states", "seen_step")
    op.drop_column("watch_states", "segment")
    op.drop_column("runs", "revision")
