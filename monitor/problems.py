"""Errors as the client sees them: one shape (RFC 9457 problem+json) that says what, where and how to mend it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)


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


def _of_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail), str(error.detail), [], error.headers)


def _of_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = list(first["loc"])
    others = len(error.errors()) - 1
    detail = f"{'.'.join(map(str, where))}: {first['msg']}" + (f" (and {others} more)" if others else "")
    return _answer(422, "the request is malformed; nothing of it was stored", detail, where)


def _of_data(_request: Request, error: Exception) -> JSONResponse:
    log.warning("the database refused a value: %s", error)
    detail = "the database cannot hold a value of this request: a text with a zero character, or a number out of range"
    return _answer(422, "the request is malformed; nothing of it was stored", detail, ["body"])


def _of_database(_request: Request, error: Exception) -> JSONResponse:
    log.error("the database failed: %s", error)
    detail = "the database cannot be reached or is busy; nothing of the request was stored, send it again"
    return _answer(503, "the database is away", detail, [], {"Retry-After": "1"})


def install(app: FastAPI) -> None:
    """Answer every error of `app` in this shape."""
    handlers: dict[Any, Any] = {
        Problem: _of_problem,
        HTTPException: _of_http,
        RequestValidationError: _of_validation,
        sa.exc.DataError: _of_data,
        UnicodeEncodeError: _of_data,
        sa.exc.OperationalError: _of_database,
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
