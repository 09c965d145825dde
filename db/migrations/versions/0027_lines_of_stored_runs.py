"""The live lines of stored runs stay as they are

Why: of segments without an order of their own the number counts. It differs from the order in which the trainer says
that it opened them where a spool came late: such segments are few, and they get that order. Nothing asks for segments
by that time any more. To the previous release nothing changes, except that an index is missing.

Revision: 0027, after 0026
"""

import sqlalchemy as sa
from alembic import op

from db.live_migrations import unhurried

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

compatible_from = "0019"

INDEX = "ix_segments_run_pk_opened_at"
MOVED = """
    SELECT run_pk, number, place FROM (
        SELECT run_pk, number, row_number() OVER (PARTITION BY run_pk ORDER BY opened_at, number) - 1 AS place
        FROM segments) AS placed
    WHERE place <> number
"""


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        _place()
        op.drop_index(INDEX, "segments", if_exists=True)
        return
    with unhurried():
        _place()
        op.drop_index(INDEX, "segments", if_exists=True, postgresql_concurrently=True)


def _place() -> None:
    bind = op.get_bind()
    if moved := [dict(row) for row in bind.execute(sa.text(MOVED)).mappings()]:
        bind.execute(
            sa.text("UPDATE segments SET live_order = :place WHERE run_pk = :run_pk AND number = :number"), moved
        )


def downgrade() -> None:
    op.create_index(INDEX, "segments", ["run_pk", "opened_at", "number"])
