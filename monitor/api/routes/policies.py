"""Policies and detection settings: of all runs, of a project, of a run."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from monitor import schemas
from monitor.actions import policies
from monitor.api import auth
from monitor.api.auth import Operator, Reader
from monitor.api.dependencies import Now, ReadSession, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.schemas import Json, Name, RunId

router = APIRouter(tags=["policies"], route_class=TypedJsonRoute)
Fields = Annotated[Json, Body()]


class OfProject(schemas.Body):
    """A misspelt name must not change the collector's values."""

    project: Name | None = None


@router.get("/policy")
def show_defaults(who: Reader, session: ReadSession, query: Annotated[OfProject, Query()]) -> dict[str, Any]:
    """The policy of new runs, of this project or of any, with the layer that each value comes from."""
    auth.check_project(who, query.project, "the policy of the collector")
    return policies.show(session, project=query.project)


@router.put("/policy")
def set_defaults(
    fields: Fields, who: Operator, session: WriteSession, now: Now, query: Annotated[OfProject, Query()]
) -> dict[str, Any]:
    """Change values of a project, or without one of the collector; null removes a value. Running runs follow."""
    auth.check_project(who, query.project, "the policy of the collector")
    policies.set_default(session, query.project, fields, who=who.author, now=now)
    return policies.show(session, project=query.project)


@router.get("/runs/{run_id}/policy")
def show_policy(run_id: RunId, _who: Reader, session: ReadSession) -> dict[str, Any]:
    """The policy of a run, with the layer that each value comes from."""
    return policies.show(session, run_id=run_id)


@router.put("/runs/{run_id}/policy")
def set_policy(run_id: RunId, fields: Fields, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Change values of the run, and under `detection` what counts as an incident; null removes a value."""
    return policies.set_of_run(session, run_id, fields, who=who.author, now=now)
