"""Error responses: one shape (RFC 9457 problem+json) that says what is wrong, where, and how to fix it."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from db.cli.command_engine import as_typed_here
from db.steps.archived.reading import UnreadableArchive
from db.steps.codec import DamagedBlock
from db.store.engine import first_line

log = logging.getLogger(__name__)

SCHEMA = {
    "title": "Problem",
    "type": "object",
    "description": "What is wrong, where, and how to fix it (RFC 9457).",
    "required": ["type", "title", "status", "detail", "where"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The kind of problem, in words that do not change."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong with this request, and how to fix it."},
        "where": {
            "type": "array",
            "items": {"type": ["string", "integer"]},
            "description": "Path to the place in the request: names of fields and indexes of lists.",
        },
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused, or not possible now; nothing was changed",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""Responses that every operation may give besides its own."""


class Problem(Exception):
    """A request that cannot be served: an HTTP status, a constant title, a sentence, and the place in the request."""

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
    """422: `where` is the path to the place in the report."""
    return Problem(422, "the report is malformed; nothing of it was stored", detail, where)


def not_possible(detail: str, *where: str) -> Problem:
    """409: the state of the run does not permit it; `where` is the path in the request, by default the URL."""
    return Problem(409, "not possible now; nothing was changed", detail, where or ["path"])


def among_damaged(steps: Sequence[int], damaged: DamagedBlock) -> Problem:
    """409: these steps came late and belong among stored ones that cannot be read, which the log says.

    The SDK keeps their lines in rejected.jsonl, and delivers those after them. An answer of 5xx would hold up the run.
    """
    log.error("the store is damaged: %s", damaged)
    which = f"step {steps[0]} comes" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]} come"
    detail = f"{which} among stored steps that cannot be read: {damaged}; then send the report again"
    return Problem(409, "the steps around these are damaged; nothing of the report was stored", detail, ["steps"])


def unknown(what: str, name: object) -> Problem:
    """404: there is no run, order, ... of this name."""
    return Problem(404, f"no such {what}", f"there is no {what} {name!r}", ["path"])


MAX_DETAIL, MAX_WHERE = 1_000, 256
"""Characters: what a client sent may be quoted in either, and may be as long as its body."""


MLFLOW_API = "/api/2.0/mlflow"
_MLFLOW_PATHS = re.compile(r"/(?:api|ajax-api)/\d\.\d/mlflow(?:-artifacts)?/")
_MLFLOW_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_ALREADY_EXISTS",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
_MLFLOW_STATUS = {405: 404, 409: 400, 422: 400}
"""Statuses that an MLflow server answers in place of the collector's."""


def _is_mlflow(request: Request) -> bool:
    return _MLFLOW_PATHS.match(request.url.path) is not None


def _response(problem: Problem, *, for_mlflow: bool) -> JSONResponse:
    """MLflow's clients read the same body: `error_code` and `message`."""
    status, detail = problem.status, problem.detail[:MAX_DETAIL]
    mlflow = {}
    if for_mlflow:
        mlflow = {"error_code": _MLFLOW_CODES.get(status, "INVALID_PARAMETER_VALUE"), "message": detail}
        status = _MLFLOW_STATUS.get(status, status)
    where = [place[:MAX_WHERE] if isinstance(place, str) else place for place in problem.where]
    body = {"type": "about:blank", "title": problem.title, "status": status, "detail": detail, "where": where}
    headers, media_type = problem.headers, "application/problem+json"
    return JSONResponse(body | mlflow, status_code=status, media_type=media_type, headers=headers)


HOW_TO_FIX = {
    404: "there is nothing at this path; see the description of the API at /docs",
    405: "this path does not support this method; see the description of the API at /docs",
    400: "the body is not JSON, or does not match its headers",
}


def _of_http(request: Request, error: HTTPException) -> Problem:
    status, title = error.status_code, str(error.detail)
    if status in (404, 405) and _is_mlflow(request):
        return Problem(404, "no such route", NO_MLFLOW_ROUTE, ["path"])
    where = ["body"] if status in (400, 413) else ["path"]
    return Problem(status, title, HOW_TO_FIX.get(status, title), where, error.headers)


NO_MLFLOW_ROUTE = (
    "the collector takes experiments, runs, metrics, params and tags of MLflow's clients, and has no route for "
    "anything else: artifacts, models, traces and deletions need an MLflow server"
)


class Malformed(NamedTuple):
    """Error of a body, in a sentence, and its place."""

    detail: str
    where: Sequence[str | int]
    given: str | None = None
    """The value that is wrong there, as JSON; None: it is missing, or nobody asks for it."""

    def for_mlflow(self) -> str:
        """The sentence as MLflow's servers begin it, which some clients compare."""
        parameter = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in self.where[1:])[1:]
        if not parameter:
            return self.detail
        if self.given is None:
            return f"Missing value for required parameter {parameter!r}."
        return f"Invalid value {self.given} for parameter {parameter!r} supplied ({self.detail})"


MALFORMED = "the request is malformed; nothing of it was stored"


def _of_validation(request: Request, error: RequestValidationError) -> Problem:
    malformed: Malformed | None = getattr(request.state, "malformed", None)  # found in a thread: monitor.api.parsing
    if malformed is not None:
        detail = malformed.for_mlflow() if _is_mlflow(request) else malformed.detail
        return Problem(422, MALFORMED, detail, malformed.where)
    first = error.errors()[0]
    where = list(first["loc"])
    detail = mistakes(where, first["msg"], len(error.errors()))
    if where == ["body"] and first["type"] != "missing" and "json" not in request.headers.get("content-type", ""):
        detail = "the body was not read as JSON; send the header Content-Type: application/json"
    return Problem(422, MALFORMED, detail, where)


def mistakes(where: Sequence[str | int], message: str, count: int) -> str:
    """A sentence about the first of `count` mistakes in a request."""
    path = ".".join(str(place)[:MAX_WHERE] for place in where)
    return f"{path}: {message}" + (f" (and {count - 1} more)" if count > 1 else "")


def _of_data(_: Request, error: Exception) -> Problem:
    log.warning("the database rejected a value: %s", first_line(error))
    detail = "the database cannot store a value of this request: a text with a NUL character, or a number out of range"
    return Problem(422, MALFORMED, detail, ["body"])


RETRY = {"Retry-After": "1"}


def no_schema(detail: str) -> Problem:
    """503: the schema is not the one that this release needs."""
    return Problem(503, "starting up", as_typed_here(detail), ["schema"], RETRY)


def no_database(detail: str) -> Problem:
    """503: the database does not answer."""
    return Problem(503, "the database is away", detail, ["database"], RETRY)


def _of_database(_: Request, error: Exception) -> Problem:
    reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
    if isinstance(error, sa.exc.ProgrammingError) or reason.startswith("no such"):
        log.error("the database schema does not fit this release: %s", reason)
        missing = "a partition of its tables" if "no partition" in reason else "the schema that this release needs"
        mend = "if no migration is running, run: python -m db upgrade"
        return no_schema(f"the database does not have {missing}; {mend}")
    log.error("the database failed: %s", reason)
    detail = "the database cannot be reached, is busy or has a full disk; nothing was stored, so send the request again"
    return no_database(detail)


def _of_damaged_block(_: Request, error: DamagedBlock) -> Problem:
    log.error("the store is damaged: %s", error)
    return Problem(500, "the store is damaged", str(error), ["database"])


def _of_unreadable_archive(_: Request, error: UnreadableArchive) -> Problem:
    log.error("%s", first_line(error))
    return Problem(503, "archived steps cannot be read", first_line(error), ["archive"], RETRY)


def internal_error() -> JSONResponse:
    """500: an error in the collector itself."""
    detail = "the collector failed; nothing of the request was stored. Its log has the cause under this X-Request-ID"
    return _response(Problem(500, "the collector failed", detail), for_mlflow=False)


PROBLEMS: dict[type[Exception], Callable[[Request, Any], Problem]] = {
    Problem: lambda _, problem: problem,
    HTTPException: _of_http,
    RequestValidationError: _of_validation,
    sa.exc.DataError: _of_data,
    UnicodeEncodeError: _of_data,
    sa.exc.OperationalError: _of_database,
    sa.exc.ProgrammingError: _of_database,
    sa.exc.TimeoutError: _of_database,
    DamagedBlock: _of_damaged_block,
    UnreadableArchive: _of_unreadable_archive,
}
ERRORS = tuple(PROBLEMS)
"""The errors that have a response of their own; any other one is a defect of the collector."""


def install(app: FastAPI) -> None:
    """Give every error response of `app` this shape."""
    for kind in ERRORS:
        app.add_exception_handler(kind, response_to)


def response_to(request: Request, error: Exception) -> JSONResponse:
    """The response to one of ERRORS."""
    kind = next(kind for kind in type(error).__mro__ if kind in PROBLEMS)
    return _response(PROBLEMS[kind](request, error), for_mlflow=_is_mlflow(request))


def too_large(limit: int, unit: str = "bytes", setting: str = "LOSSGUARD_MAX_REPORT_BYTES") -> Problem:
    """413: the body has more than `limit` bytes, or more values than its parsed form may have."""
    detail = f"a request body may have at most {limit} {unit}; send smaller reports, or raise {setting}"
    return Problem(413, "the request is too large; nothing of it was stored", detail, ["body"])


def no_room(what: str, has: str, remedy: str, where: str) -> Problem:
    """429: there are as many as there may be; `has` says how many, and who has them."""
    detail = f"{has} {what}s, which is the limit; {remedy}"
    return Problem(429, f"there is no room for another {what}", detail, ["body", where], {"Retry-After": "60"})


def run_not_found(run_id: str) -> Problem:
    """404: no MLflow client reports a run with this id."""
    return Problem(404, "no such run", f"Run {run_id!r} not found among those that MLflow clients report", ["run_id"])


def without_retry(problem: Problem) -> Problem:
    """Return the problem as 422 for a client that would repeat a request answered with 429 for minutes."""
    return Problem(422, problem.title, problem.detail, problem.where)
