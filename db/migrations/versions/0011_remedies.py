"""The remedies of an intervention and of its order

Why: an order may switch on remedies that the loop has registered. The previous release ignores the columns, and writes
no remedies.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: that would make the table anew on SQLite, and dropping the old one takes along all that refers to
    # it.
    for table in ("interventions", "orders"):
        op.add_column(table, sa.Column("remedies", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    for table in ("interventions", "orders"):
        op.drop_column(table, "remedies")
