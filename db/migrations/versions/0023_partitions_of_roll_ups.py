"""Partitions of the roll-ups on PostgreSQL

Why: the roll-ups of deleted runs were the most rows that a prune had to find, and their space stayed in the table. Now
they are partitioned as blocks are (db/store/partitions.py). The table as it is becomes the partition of the runs that
there
are, and of those that are registered until every collector makes partitions. To the previous release nothing changes.

Revision: 0023, after 0022
"""

import sqlalchemy as sa
from alembic import op

from db.live_migrations import unhurried

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

NUM_KEYS = 100
"""Runs of a partition, as in db.store.partitions."""
MARGIN = 1_000
"""Runs that collectors of the previous release may register until they are stopped."""
KEY = "run_pk, segment, metric, level, start"
COLUMNS = "LIKE {} INCLUDING DEFAULTS INCLUDING STORAGE"


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    newest = op.get_bind().scalar(sa.text("SELECT max(pk) FROM runs"))
    first = 0 if newest is None else (newest + MARGIN) // NUM_KEYS + 1
    before = f"rollups_before_{first}"
    with unhurried():  # no vacuum of the table is to be waited for later
        op.execute("ALTER TABLE rollups SET (autovacuum_enabled = false)")
    op.execute("ALTER TABLE rollups DROP CONSTRAINT IF EXISTS ck_rollups_before")  # of an attempt that was killed
    op.execute(f"ALTER TABLE rollups ADD CONSTRAINT ck_rollups_before CHECK (run_pk < {first * NUM_KEYS}) NOT VALID")
    with unhurried():  # reads the whole table, so that attaching it need not
        op.execute("ALTER TABLE rollups VALIDATE CONSTRAINT ck_rollups_before")
    op.execute(f"ALTER TABLE rollups RENAME TO {before}")
    op.execute(f"ALTER INDEX pk_rollups RENAME TO {before}_pkey")
    op.execute(
        f"CREATE TABLE rollups ({COLUMNS.format(before)}, CONSTRAINT pk_rollups PRIMARY KEY ({KEY}))"
        " PARTITION BY RANGE (run_pk)"
    )
    op.execute(f"ALTER TABLE rollups ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ({first * NUM_KEYS})")
    op.execute(f"ALTER TABLE {before} DROP CONSTRAINT ck_rollups_before")
    op.execute(f"ALTER TABLE {before} RESET (autovacuum_enabled)")
    if first == 0:
        op.execute(f"DROP TABLE {before}")  # there are no runs


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE rollups RENAME TO rollups_of_partitions")
    op.execute("ALTER INDEX pk_rollups RENAME TO pk_rollups_of_partitions")
    op.execute(f"CREATE TABLE rollups ({COLUMNS.format('rollups_of_partitions')})")
    op.execute("INSERT INTO rollups SELECT * FROM rollups_of_partitions")
    op.execute("DROP TABLE rollups_of_partitions")
    op.execute(f"ALTER TABLE rollups ADD CONSTRAINT pk_rollups PRIMARY KEY ({KEY})")
    op.execute(
        "ALTER TABLE rollups ADD CONSTRAINT fk_rollups_run_pk_runs FOREIGN KEY (run_pk) REFERENCES runs (pk)"
        " ON DELETE CASCADE"
    )
