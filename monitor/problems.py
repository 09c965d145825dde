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
from lossguard.vocabulary.protocol import WIRE_HEADER, WIRE_VERSION

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


def _response(
    request: Request | None,
    status: int,
    title: str,
    detail: str,
    where: Sequence[str | int],
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """MLflow's clients read the same body: `error_code` and `message`."""
    places = [place[:MAX_WHERE] if isinstance(place, str) else place for place in where]
    mlflow = {}
    if request is not None and _is_mlflow(request):
        mlflow = {"error_code": _MLFLOW_CODES.get(status, "INVALID_PARAMETER_VALUE"), "message": detail[:MAX_DETAIL]}
        status = _MLFLOW_STATUS.get(status, status)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail[:MAX_DETAIL], "where": places}
    return JSONResponse(body | mlflow, status_code=status, media_type="application/problem+json", headers=headers)


def _handle_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return _response(request, error.status, error.title, error.detail, error.where, error.headers)


HOW_TO_FIX = {
    404: "there is nothing at this path; see the description of the API at /docs",
    405: "this path does not support this method; see the description of the API at /docs",
    400: "the body is not JSON, or does not match its headers",
}


def _handle_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405) and _is_mlflow(request):
        return _response(request, 404, "no such route", NO_MLFLOW_ROUTE, ["path"])
    title = str(error.detail)
    where = ["body"] if error.status_code in (400, 413) else ["path"]
    return _response(request, error.status_code, title, HOW_TO_FIX.get(error.status_code, title), where, error.headers)


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


def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    malformed: Malformed | None = getattr(request.state, "malformed", None)  # found in a thread: monitor.api.parsing
    if malformed is not None:
        detail = malformed.for_mlflow() if _is_mlflow(request) else malformed.detail
        return _response(request, 422, MALFORMED, detail, malformed.where)
    first = error.errors()[0]
    where = list(first["loc"])
    if where == ["body"] and first["type"] != "missing" and "json" not in request.headers.get("content-type", ""):
        detail = "the body was not read as JSON; send the header Content-Type: application/json"
        return _response(request, 422, MALFORMED, detail, where)
    return _response(request, 422, MALFORMED, mistakes(where, first["msg"], len(error.errors())), where)


def mistakes(where: Sequence[str | int], message: str, count: int) -> str:
    """A sentence about the first of `count` mistakes in a request."""
    path = ".".join(str(place)[:MAX_WHERE] for place in where)
    return f"{path}: {message}" + (f" (and {count - 1} more)" if count > 1 else "")


def _handle_data_error(request: Request, error: Exception) -> JSONResponse:
    log.warning("the database rejected a value: %s", first_line(error))
    detail = "the database cannot store a value of this request: a text with a NUL character, or a number out of range"
    return _response(request, 422, MALFORMED, detail, ["body"])


RETRY = {"Retry-After": "1"}


def no_schema(detail: str) -> Problem:
    """503: the schema is not the one that this release needs."""
    return Problem(503, "starting up", as_typed_here(detail), ["schema"], RETRY)


def no_database(detail: str) -> Problem:
    """503: the database does not answer."""
    return Problem(503, "the database is away", detail, ["database"], RETRY)


def _handle_database_error(request: Request, error: Exception) -> JSONResponse:
    reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
    if isinstance(error, sa.exc.ProgrammingError) or reason.startswith("no such"):
        log.error("the database schema does not fit this release: %s", reason)
        missing = "a partition of its tables" if "no partition" in reason else "the schema that this release needs"
        mend = "if no migration is running, run: python -m db upgrade"
        return _handle_problem(request, no_schema(f"the database does not have {missing}; {mend}"))
    log.error("the database failed: %s", reason)
    detail = "the database cannot be reached, is busy or has a full disk; nothing was stored, so send the request again"
    return _handle_problem(request, no_database(detail))


def _handle_damaged_block(request: Request, error: Exception) -> JSONResponse:
    log.error("the store is damaged: %s", error)
    return _handle_problem(request, Problem(500, "the store is damaged", str(error), ["database"]))


def _handle_unreadable_archive(request: Request, error: Exception) -> JSONResponse:
    log.error("%s", first_line(error))
    problem = Problem(503, "archived steps cannot be read", first_line(error), ["archive"], RETRY)
    return _handle_problem(request, problem)


def internal_error() -> JSONResponse:
    """500: an error in the collector itself."""
    detail = "the collector failed; nothing of the request was stored. Its log has the cause under this X-Request-ID"
    return _response(None, 500, "the collector failed", detail, [])


HANDLERS: dict[Any, Callable[[Request, Exception], JSONResponse]] = {
    Problem: _handle_problem,
    HTTPException: _handle_http_error,
    RequestValidationError: _handle_validation_error,
    sa.exc.DataError: _handle_data_error,
    UnicodeEncodeError: _handle_data_error,
    sa.exc.OperationalError: _handle_database_error,
    sa.exc.ProgrammingError: _handle_database_error,
    sa.exc.TimeoutError: _handle_database_error,
    DamagedBlock: _handle_damaged_block,
    UnreadableArchive: _handle_unreadable_archive,
}
ERRORS = tuple(HANDLERS)
"""The errors that have a response of their own; any other one is a defect of the collector."""


def install(app: FastAPI) -> None:
    """Give every error response of `app` this shape."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


def response_to(request: Request, error: Exception) -> JSONResponse:
    """The response to one of ERRORS that was raised outside of the routes."""
    kind = next(kind for kind in type(error).__mro__ if kind in HANDLERS)
    return HANDLERS[kind](request, error)


TOO_LARGE = "the request is too large; nothing of it was stored"


def too_large(limit: int) -> Problem:
    """413: the body has more than `limit` bytes."""
    detail = f"a request body may have at most {limit} bytes; send smaller reports, or raise LOSSGUARD_MAX_REPORT_BYTES"
    return Problem(413, TOO_LARGE, detail, ["body"])


def too_many_values(limit: int) -> Problem:
    """413: the body would take too much memory once it is parsed."""
    detail = f"a request body may have at most {limit} values; send smaller reports, or raise LOSSGUARD_MAX_VALUES"
    return Problem(413, TOO_LARGE, detail, ["body"])


def too_slow(seconds: float, rate: int) -> Problem:
    """408: the body did not arrive in time."""
    detail = (
        f"the body stopped for {seconds:.0f} s, or was slower than {rate} bytes/s; nothing was stored, so send it again"
    )
    return Problem(408, "the body did not arrive in time", detail, ["body"])


def busy() -> Problem:
    """429: too much work at once."""
    detail = "the collector is at its limit of concurrent work; nothing was stored, so send it again after a second"
    return Problem(429, "the collector is busy", detail, [], {"Retry-After": "1"})


def other_wire(version: bytes) -> Problem:
    """426: the client speaks another version of the wire."""
    detail = (
        f"the client speaks version {version[:20].decode('ascii', 'replace')} of the wire, and this collector version"
        f" {WIRE_VERSION}: upgrade the older one"
    )
    return Problem(426, "another version", detail, [WIRE_HEADER])


def run_not_found(run_id: str) -> Problem:
    """404: no MLflow client reports a run with this id."""
    return Problem(404, "no such run", f"Run {run_id!r} not found among those that MLflow clients report", ["run_id"])


def without_retry(problem: Problem) -> Problem:
    """Return the problem as 422 for a client that would repeat a request answered with 429 for minutes."""
    return Problem(422, problem.title, problem.detail, problem.where)


def too_many_segments(limit: int) -> Problem:
    """429: the run has as many segments as it may."""
    detail = f"the run has {limit} segments, which is the limit; begin a new run, or raise LOSSGUARD_MAX_SEGMENTS"
    return Problem(429, "there is no room for another segment", detail, ["body", "key"], {"Retry-After": "60"})


def too_many_experiments(limit: int) -> Problem:
    """429: the store holds as many experiments of MLflow as it may."""
    detail = f"the store holds {limit} experiments, which is the limit; use one of them, or raise LOSSGUARD_MAX_RUNS"
    return Problem(429, "there is no room for another experiment", detail, ["body", "name"])


def too_many_runs(limit: int) -> Problem:
    """429: the store holds as many runs as it may."""
    detail = f"the store holds {limit} runs, which is the limit; delete some, or raise LOSSGUARD_MAX_RUNS"
    return Problem(429, "there is no room for another run", detail, ["body", "id"], {"Retry-After": "60"})
