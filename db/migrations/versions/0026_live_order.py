"""The order in which segments lead the live line, and whose they are

Why: the line went to the segment that the trainer said it had opened last. A clock that was wrong hid later incidents,
or kept every further step from the detection. Now the collector gives the order, and says which folder opened a segment:
only the process with the lease of the run leads the line. To the previous release nothing changes.

Revision: 0026, after 0025
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

compatible_from = "0019"


def upgrade() -> None:
    op.add_column("segments", sa.Column("live_order", sa.Integer(), nullable=True))
    op.add_column("segments", sa.Column("writer", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.drop_column("segments", "writer")
    op.drop_column("segments", "live_order")
