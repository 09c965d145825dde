"""The collector's log: one line per event and one per request, as JSON or as logfmt.

Every request has an id: the client's own X-Request-ID if it is well-formed, else a random one. It is in the response
and in every line that is logged while the request is served. Headers, bodies and query strings are never logged.
"""

import json
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor import problems

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
PLAIN = re.compile(r"[^\s\"=]+")
"""A text that needs no quotes in a line of text."""
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being served."""
log = logging.getLogger("monitor.requests")


class LogFormat(StrEnum):
    """Format of a line."""

    TEXT = "text"  # logfmt: name=value, for people and for most log collectors
    JSON = "json"  # one JSON object per line


class LogLevel(StrEnum):
    """Lowest level that is logged."""

    INFO = "info"  # every request
    WARNING = "warning"  # refused requests, errors of the database
    ERROR = "error"


class LineFormatter(logging.Formatter):
    """One line per record: time, level, logger, message, request id, then the record's `fields`."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request": request_id.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        values = {name: value for name, value in values.items() if value is not None}
        return json.dumps(values) if self._log_format is LogFormat.JSON else _logfmt(values)


def _logfmt(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in values.items())


def _quoted(text: str) -> str:
    """Quote `text` unless it is plain: a client's text must not control the terminal that shows the log."""
    if text.isprintable() and PLAIN.fullmatch(text):
        return text
    return json.dumps(text).replace("\x7f", "\\u007f")  # the one control character that JSON does not escape


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Log everything of this process in one format, to standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(log_format))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class RequestLog:
    """ASGI middleware, the outermost one: gives every request its id, and logs it after the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        reset = request_id.set(given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id.get() or ""
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("the request caused an internal error")
            if not status:
                await problems.internal_error()(scope, receive, send_with_id)
            raise
        finally:
            log.info("%s", scope["method"], extra={"fields": _fields(scope, status, time.perf_counter() - start)})
            request_id.reset(reset)


def _fields(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    """`status` 0: the client disconnected before the response started."""
    route = scope.get("route")
    return {
        "route": scope["path"][:256] if route is None else _template(scope["path"], route.path_format),
        "run": scope.get("path_params", {}).get("run_id"),
        "status": status,
        "ms": round(1e3 * seconds, 2),
    }


def _template(path: str, end: str) -> str:
    """The whole template of a route, whose own template `end` lacks the prefix of its router."""
    prefix = path.split("/")[: path.count("/") - end.count("/") + 1]
    return "/".join(prefix) + end
