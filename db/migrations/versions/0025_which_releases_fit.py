"""Which releases fit the schema

Why: while collectors are replaced one after another, those of the previous release serve a schema that is newer than
theirs. The store says from which revision on a release may use it, so that such a collector knows whether it may go on.
`db.migrate` writes the row with each migration: `compatible_from` of a migration is the oldest revision whose release
may use the store afterwards. To the previous release nothing changes.

Revision: 0025, after 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

compatible_from = "0019"
"""A release of 0019 knows nothing of this table, but it runs: see tests/reliability/test_rolling_upgrade.py."""


def upgrade() -> None:
    op.create_table(
        "schema_compatibility",
        sa.Column("compatible_from", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("compatible_from", name=op.f("pk_schema_compatibility")),
    )


def downgrade() -> None:
    op.drop_table("schema_compatibility")
