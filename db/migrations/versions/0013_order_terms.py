"""What an order is about, until when it counts, who approved it, its signature, and why a trainer refused it

Why: a trainer refuses orders that are late, beyond its limits, or not signed. The previous release ignores the columns,
and its orders have none of them.

Revision: 0013, after 0012
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "segment": sa.String(length=128),
    "step": sa.BigInteger(),
    "expires_at": sa.Float(precision=53),
    "expires_step": sa.BigInteger(),
    "approved_by": sa.String(length=320),
    "signature": sa.String(length=64),
    "refusal": sa.String(length=16),
}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("orders", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("orders", name)
