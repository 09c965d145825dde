"""Errors as the client sees them: one shape (RFC 9457 problem+json) that says what, where and how to mend it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from db.engine import first_line

log = logging.getLogger(__name__)


SCHEMA = {
    "title": "Problem",
    "type": "object",
    "description": "What is wrong, where, and how to mend it (RFC 9457).",
    "required": ["type", "title", "status", "detail", "where"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "What is wrong, in words that stay the same."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong here, and how to mend it."},
        "where": {
            "type": "array",
            "items": {"type": ["string", "integer"]},
            "description": "The way to the place in the request: names of fields and indexes of lists.",
        },
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused, or not possible now: nothing was changed",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""What every operation may answer besides its own."""


class Problem(Exception):
    """A request that cannot be served: `status` 4xx, a sentence, and where in the request it went wrong."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        where: Sequence[str | int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.where = status, title, detail, list(where)
        self.headers = headers


def bad_report(detail: str, *where: str | int) -> Problem:
    return Problem(422, "the report is malformed; nothing of it was stored", detail, where)


def unknown(what: str, name: object) -> Problem:
    return Problem(404, f"no such {what}", f"there is no {what} {name!r}", ["path"])


def _answer(
    status: int, title: str, detail: str, where: Sequence[str | int], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "where": list(where)}
    return JSONResponse(body, status_code=status, media_type="application/problem+json", headers=headers)


def _of_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return _answer(error.status, error.title, error.detail, error.where, error.headers)


HOW_TO_MEND = {
    404: "there is nothing at this path; the API is described at /docs",
    405: "this path does not take this method; the API is described at /docs",
    400: "the body is no JSON, or its headers say something else than what it is",
}


def _of_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = str(error.detail)
    where = ["body"] if error.status_code in (400, 413) else ["path"]
    return _answer(error.status_code, title, HOW_TO_MEND.get(error.status_code, title), where, error.headers)


def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = list(first["loc"])
    if where == ["body"] and first["type"] != "missing" and "json" not in request.headers.get("content-type", ""):
        detail = "the body is taken for no JSON; send the header Content-Type: application/json"
        return _answer(422, "the request is malformed; nothing of it was stored", detail, where)
    others = len(error.errors()) - 1
    detail = f"{'.'.join(map(str, where))}: {first['msg']}" + (f" (and {others} more)" if others else "")
    return _answer(422, "the request is malformed; nothing of it was stored", detail, where)


def _of_data(_request: Request, error: Exception) -> JSONResponse:
    log.warning("the database refused a value: %s", first_line(error))
    detail = "the database cannot hold a value of this request: a text with a zero character, or a number out of range"
    return _answer(422, "the request is malformed; nothing of it was stored", detail, ["body"])


RETRY = {"Retry-After": "1"}


def no_schema(detail: str) -> Problem:
    return Problem(
        503, "starting up", f"{detail}; if nothing is migrating it, run: python -m db upgrade", ["schema"], RETRY
    )


def no_database(detail: str) -> Problem:
    return Problem(503, "the database is away", detail, ["database"], RETRY)


def _of_database(request: Request, error: Exception) -> JSONResponse:
    reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
    if isinstance(error, sa.exc.ProgrammingError) or reason.startswith("no such"):
        log.error("the database lacks what this release needs: %s", reason)
        return _of_problem(request, no_schema("the database has not the schema that this release needs"))
    log.error("the database failed: %s", reason)
    detail = "the database cannot be reached or is busy; nothing of the request was stored, send it again"
    return _of_problem(request, no_database(detail))


def broken() -> JSONResponse:
    """A mistake of the collector's own."""
    detail = "the collector failed; nothing of the request was stored. Its log has the cause under the X-Request-ID"
    return _answer(500, "the collector failed", detail, [])


def install(app: FastAPI) -> None:
    """Answer every error of `app` in this shape."""
    handlers: dict[Any, Any] = {
        Problem: _of_problem,
        HTTPException: _of_http,
        RequestValidationError: _of_validation,
        sa.exc.DataError: _of_data,
        UnicodeEncodeError: _of_data,
        sa.exc.OperationalError: _of_database,
        sa.exc.ProgrammingError: _of_database,
        sa.exc.TimeoutError: _of_database,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def too_large_detail(limit: int) -> str:
    return f"a request body may have {limit} bytes; send the report in parts, or raise LOSSGUARD_MAX_REPORT_BYTES"


def too_large(limit: int) -> JSONResponse:
    return _answer(413, "the request is too large; nothing of it was stored", too_large_detail(limit), ["body"])


def busy() -> JSONResponse:
    detail = "the collector has all the work that it takes at once; nothing was stored, send it again after a second"
    return _answer(429, "the collector is busy", detail, [], {"Retry-After": "1"})


def full(limit: int) -> Problem:
    """There is no room for another run."""
    detail = f"the store holds {limit} runs, as many as it may; delete some, or raise LOSSGUARD_MAX_RUNS"
    return Problem(429, "there is no room for another run", detail, ["body", "id"], {"Retry-After": "60"})
