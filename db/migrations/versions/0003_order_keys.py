"""A random key for every order

Why: ids begin again in a rebuilt store, and an old answer must not be taken for the answer to a new order. The previous
release ignores the column.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("key", sa.String(length=32), nullable=True))


def downgrade() -> None:
    # Not by a new table in the old one's place: SQLite would take the ledger's references to the old one away.
    op.drop_column("orders", "key")
