"""Indexes for lists of many runs

Why: a page of runs, the newest first, begins where the last one ended, wherever that is. A search asks for each name in
it whether any run has a metric of that name.

Revision: 0022, after 0021
"""

from alembic import op

from db.live_migrations import create_index

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index("ix_runs_started_at", "runs", ["started_at", "pk"])
    create_index("ix_metrics_name", "metrics", ["name"])


def downgrade() -> None:
    op.drop_index("ix_metrics_name", "metrics")
    op.drop_index("ix_runs_started_at", "runs")
