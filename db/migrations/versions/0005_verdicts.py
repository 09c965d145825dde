"""The cause of an incident, as a replay found it

Why: what `python -m trainer replay` finds belongs to the incident and not into somebody's terminal. The previous
release
ignores the column.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("incidents", sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("incidents") as incidents:
        incidents.drop_column("verdict")
