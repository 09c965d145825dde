"""Identity: the client's, by its token, and the collector's."""

from typing import Any

from fastapi import APIRouter

from lossguard.run.environment import versions
from monitor.api.auth import Client
from monitor.api.dependencies import Now

router = APIRouter(tags=["collector"])


@router.get("/token")
def token(who: Client) -> dict[str, Any]:
    """The name and the scopes of the token of this request, and the project or the run that it is bound to."""
    return {"name": who.name, "scopes": sorted(who.scopes), "project": who.project, "run": who.run}


@router.get("/collector")
def collector(_who: Client, now: Now) -> dict[str, Any]:
    """The release of the collector, and its clock (unix seconds)."""
    return {"version": versions().get("lossguard"), "time": now}
