"""Where the restorable checkpoints of a run are kept, and how long it takes to save and to load them

Why: the policy charged every rollback the same for loading its checkpoint, whether from memory or from the disk. The
previous release ignores the column; NULL stands for a run whose SDK does not report it.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: that would make the table anew on SQLite, and dropping the old one takes along all that refers to
    # it.
    op.add_column("runs", sa.Column("restorable_tiers", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "restorable_tiers")
