"""The audit trail: who ordered, approved, changed or deleted what."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from db.records.access import trail
from monitor.api import auth, responses
from monitor.api.auth import Operator
from monitor.api.dependencies import ReadSession
from monitor.schemas import RunId

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("")
def audit(
    who: Operator,
    session: ReadSession,
    run: RunId | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> list[dict[str, Any]]:
    """The newest entries first, those of deleted runs included."""
    auth.check_unbound(who, "the audit trail")
    return [responses.record(row) for row in trail(session, run=run, limit=limit)]
