"""The scorecard: what the policy would have done in runs where it gave no orders, and what happened."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from lossguard.vocabulary.protocol import MAX_TIME
from lossguard.vocabulary.values import plain_json
from monitor.api.auth import Reader
from monitor.api.dependencies import ReadSession, Shared
from monitor.detection.scorecard import wording
from monitor.problems import unknown
from monitor.schemas import Name, RunId

router = APIRouter(prefix="/scorecard", tags=["scorecard"])


@router.get("")
def scorecard(
    who: Reader,
    collector: Shared,
    session: ReadSession,
    project: Name | None = None,
    run: RunId | None = None,
    since: Annotated[float | None, Query(ge=0, le=MAX_TIME)] = None,
) -> dict[str, Any]:
    """The runs of a project, one run, or all; `since`: those that reported at this unix time or later."""
    found = collector.scored_runs.read(
        session, project=who.project if project is None else project, run_id=run or who.run, since=since
    )
    permitted = [each for each in found if who.project in (None, each.project) and who.run in (None, each.id)]
    if run is not None and not permitted:
        raise unknown("run", run)
    scores = [each.score for each in permitted if each.score is not None]
    answer: dict[str, Any] = plain_json(wording.to_dict(scores, num_auto=len(permitted) - len(scores)))
    return answer
