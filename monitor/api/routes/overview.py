"""Where each run stands, in one answer: what a list of runs shows."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from db import queries
from db.overview import Standing, Tally, standings, tallies
from monitor.api import responses
from monitor.api.auth import Reader
from monitor.api.dependencies import ReadSession
from monitor.schemas import Name

router = APIRouter(tags=["runs"])


@router.get("/overview")
def overview(
    who: Reader, session: ReadSession, project: Name | None = None, config: Annotated[bool, Query()] = False
) -> list[dict[str, Any]]:
    """All runs, the newest first, with newest step, last values and what is open; `config=true`: with configurations.

    Its cost does not depend on the length of the runs.
    """
    if who.project is not None and project not in (None, who.project):
        return []
    counts, newest = tallies(session), standings(session)
    found = queries.runs(session, project=who.project or project)
    return [
        responses.standing(run, newest.get(run.pk, Standing()), counts.get(run.pk, Tally()), with_config=config)
        for run in found
        if who.run in (None, run.id)
    ]
