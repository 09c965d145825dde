"""Lists of runs as the routes answer them: what a client asks for, in pages of the store's."""

from collections.abc import Collection, Sequence
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from db.models import Run
from db.runs import pages
from db.runs.filters import RunFilter
from db.runs.pages import BadCursor, SearchTooSlow
from lossguard.vocabulary.protocol import MAX_ITEMS, MAX_TIME
from lossguard.vocabulary.run_search import MAX_TERMS, RunOrder, Search, Word, parse
from lossguard.vocabulary.states import RunState
from monitor.api.auth import Principal
from monitor.problems import Problem
from monitor.schemas import Name, Text

MAX_PAGE = 1_000
"""Runs in one page."""


class RunListIn(BaseModel):
    """The content of a list of runs. Without `limit` it has all runs that match."""

    model_config = ConfigDict(extra="ignore")

    project: Name | None = None
    state: Annotated[list[RunState], Field(max_length=MAX_ITEMS)] = []
    """Any of these."""
    tag: Annotated[list[Text], Field(max_length=MAX_TERMS)] = []
    """Tags that a run must all have."""
    text: Text = ""
    """Text in the project, name, id, host, devices, command, tags or note."""
    search: Text = ""
    """Words and conditions, as `lossguard runs --search` and the dashboard have them."""
    since: Annotated[float, Field(ge=0, le=MAX_TIME)] | None = None
    """Runs that reported since then, in unix seconds."""
    archived: bool | None = None
    sort: RunOrder = RunOrder.NEWEST
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] | None = None
    cursor: Text | None = None
    """End of the page before: from its `Link` header."""
    fields: Text = ""
    """Names of fields with commas between: only these are shown."""


Asked = Annotated[RunListIn, Query()]


class RunLists:
    """The runs that a request asks for."""

    def __init__(self, asked: Asked, request: Request, response: Response) -> None:
        self._asked, self._request, self._response = asked, request, response

    def page(self, session: Session, who: Principal, *, now: float, columns: Collection[str] = ()) -> Sequence[Run]:
        """The runs of the page; where there are more, the answer's `Link` header says how to get them.

        `columns`: the columns of `Run` that are shown, without them all. Raises Problem 422.
        """
        asked = self._asked
        if asked.cursor is not None and asked.limit is None:
            raise _malformed("a cursor is for pages: give limit=, too", "limit")
        try:
            found = pages.page(
                session,
                where=_filter(asked, who),
                order=asked.sort,
                limit=asked.limit,
                cursor=asked.cursor,
                now=now,
                columns=columns,
            )
        except BadCursor as error:
            raise _malformed(str(error), "cursor") from None
        except SearchTooSlow as error:
            raise Problem(503, "the search takes too long", str(error), ["query", "search"]) from None
        if found.next is not None:
            url = self._request.url.include_query_params(cursor=found.next)
            self._response.headers["Link"] = f'<?{url.query}>; rel="next"'
        return found.runs

    def fields(self, known: Collection[str]) -> list[str] | None:
        """The fields that are asked for, of those that are known; None: all. Raises Problem 422."""
        asked = [name for name in map(str.strip, self._asked.fields.split(",")) if name]
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise _malformed(f"there is no field {unknown[0]!r:.200}; there are {', '.join(sorted(known))}", "fields")
        return asked or None


Lists = Annotated[RunLists, Depends()]


def _filter(asked: RunListIn, who: Principal) -> RunFilter:
    """Return the filter of the request, as far as the token covers it."""
    projects = {asked.project, who.project} - {None}
    words = (Word(asked.text),) if asked.text else ()
    search = parse(asked.search)
    if search.problems:
        raise _malformed(" ".join(search.problems), "search")
    return RunFilter(
        projects=(projects if len(projects) == 1 else ()) if projects else None,  # type: ignore[arg-type]
        run_ids=None if who.run is None else (who.run,),
        states=asked.state or None,
        tags=asked.tag,
        since=asked.since,
        archived=asked.archived,
        search=Search((*words, *search.terms)),
    )


def _malformed(detail: str, field: str) -> Problem:
    return Problem(422, "the request is malformed", detail, ["query", field])
