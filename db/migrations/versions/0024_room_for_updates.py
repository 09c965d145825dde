"""Room in the pages of the rows that every report updates

Why: PostgreSQL writes a changed row anew. Where its page has room, no index changes and the old row goes with the next
visit; else the row moves, and the indexes and the table grow until a vacuum. Of the updates of run statuses, which are
four to a page, one in eight had room. Rows that are stored keep their pages until they move. To the previous release
nothing changes.

Revision: 0024, after 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

FILL_FACTORS = {"runs": 70, "segments": 70, "pulses": 45}
"""Percent of a page that new rows fill. A status has up to 2 kB, a quarter of a page."""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, percent in FILL_FACTORS.items():
            op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in FILL_FACTORS:
            op.execute(f"ALTER TABLE {table} RESET (fillfactor)")
