"""What the collector writes down of itself: one line an event, one line a request, as JSON or as logfmt.

Every request has an id: the client's own X-Request-ID when that is sane, else one of ours. It is in the answer, and in
every line that was written while the request was served. Neither headers nor bodies nor query strings are written.
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

SANE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being served."""
log = logging.getLogger("monitor.requests")


class LogFormat(StrEnum):
    """How a line is written."""

    TEXT = "text"  # logfmt: name=value, for people and for most collectors of logs
    JSON = "json"  # one JSON object a line


class LogLevel(StrEnum):
    """The least important lines that are written."""

    INFO = "info"  # every request
    WARNING = "warning"  # refused requests, trouble with the database
    ERROR = "error"


class Lines(logging.Formatter):
    """A record as one line: time, level, logger, message, request, then what the record has in `fields`."""

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._written = style

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
        told = {name: value for name, value in values.items() if value is not None}
        return json.dumps(told) if self._written is LogFormat.JSON else _logfmt(told)


def _logfmt(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={_word(str(value))}" for name, value in values.items())


def _word(text: str) -> str:
    """Quoted, unless it is plain: what came from a client must not steer the terminal that shows the log."""
    if text.isprintable() and re.fullmatch(r"[^\s\"=]+", text):
        return text
    return json.dumps(text).replace("\x7f", "\\u007f")  # the one control character that JSON lets through


def configure(style: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Write everything that this process logs in one way, to standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(style))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Requests:
    """ASGI middleware, the outermost: gives every request its id, and writes it down when it has been answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        known = request_id.set(given if SANE.fullmatch(given) else secrets.token_hex(8))

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id.get() or ""
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            log.exception("the request made the collector fail")
            if not status:
                await problems.broken()(scope, receive, noted)
            raise
        finally:
            log.info("%s", scope["method"], extra={"fields": _fields(scope, status, time.perf_counter() - began)})
            request_id.reset(known)


def _fields(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    """`status` 0: the client went away before an answer was begun."""
    route = scope.get("route")
    return {
        "route": scope["path"][:256] if route is None else _template(scope["path"], route.path_format),
        "run": scope.get("path_params", {}).get("run_id"),
        "status": status,
        "ms": round(1e3 * seconds, 2),
    }


def _template(path: str, end: str) -> str:
    """The whole template of a route that knows only what comes after its router's prefix."""
    prefix = path.split("/")[: path.count("/") - end.count("/") + 1]
    return "/".join(prefix) + end
