"""Values of the policy for the collector, for a project and for a run

Why: a team sets its policy once. What a run had set itself stays its own. The previous release ignores the table, and
changes a run's policy without it: upgrade all collectors of a database together.

Revision: 0014, after 0013
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "policy_layers",
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("run_pk", sa.Integer(), nullable=True),
        sa.Column("fields", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("changed_at", sa.Float(precision=53), nullable=False),
        sa.Column("changed_by", sa.String(length=320), nullable=False),
        sa.Column("by_operator", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_policy_layers_run_pk_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_policy_layers")),
        sa.UniqueConstraint("run_pk", name=op.f("uq_policy_layers_run_pk")),
    )
    found = op.get_bind().execute(
        sa.text("SELECT pk, id, started_at, CAST(policy AS TEXT) FROM runs WHERE policy IS NOT NULL")
    )
    for pk, run_id, started_at, policy in found.all():
        fields = _fields(policy)
        if fields is not None:
            row = {"key": f"run:{run_id}", "run_pk": pk, "fields": fields, "changed_at": started_at}
            op.bulk_insert(table, [row | {"changed_by": "an earlier release", "by_operator": True}])


def _fields(policy: str) -> dict[str, Any] | None:
    """The stored rule; one without a name is from a release whose only policy was palm."""
    try:
        fields = json.loads(policy)
    except ValueError:
        return None
    return {"name": "palm"} | fields if isinstance(fields, dict) and fields else None


def downgrade() -> None:
    op.drop_table("policy_layers")
