"""State of each run in one answer, as a list of runs shows it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from db.runs.overview import Standing, Tally, standings, tallies
from db.runs.verdicts import verdicts
from monitor.api import responses
from monitor.api.auth import Reader
from monitor.api.dependencies import Now, ReadSession
from monitor.api.run_lists import Lists

router = APIRouter(tags=["runs"])


@router.get("/overview")
def overview(
    who: Reader, session: ReadSession, now: Now, lists: Lists, config: Annotated[bool, Query()] = False
) -> list[dict[str, Any]]:
    """Return the runs of GET /runs with verdict, newest step, last values and what is open.

    `config=true`: with configurations. Its cost does not depend on the length of the runs.
    """
    fields = lists.fields(responses.STANDING_FIELDS) or responses.standing_fields(with_config=config)
    found = lists.page(session, who, now=now, columns=responses.columns_of_standing(fields))
    newest = standings(session, runs=found) if {"step", "metrics"} & set(fields) else {}
    counts = tallies(session, runs=found) if {"open_incidents", "waiting"} & set(fields) else {}
    judged = verdicts(session, runs=found, now=now) if set(responses.JUDGED) & set(fields) else {}
    return [
        responses.standing(run, newest.get(run.pk, Standing()), counts.get(run.pk, Tally()), judged.get(run.pk), fields)
        for run in found
    ]
