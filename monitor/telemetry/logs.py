"""The collector's log: one line per event and one per request (`monitor.api.requests`), as JSON or as logfmt."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

PLAIN = re.compile(r"[^\s\"=]+")
"""A text that needs no quotes in a line of text."""
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being served."""


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
        if self._log_format is LogFormat.JSON:
            return json.dumps(values)
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
