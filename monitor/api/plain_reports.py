"""The short way of a report: most requests are one, and FastAPI's routing and dependencies cost more than the rest.

A plain report is well-formed, in the most usual form, and from a client whose token is bound to nothing. Every other
request goes on to the routes, which say what is wrong with it: nothing is refused here.
"""

import re
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import Request, Response
from msgspec import Meta
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from db.records.access import Scope as TokenScope
from lossguard.spool.writer import WRITER_HEADER, Writer
from lossguard.vocabulary.protocol import API, MAX_STEP, MAX_TIME, RUN_ID_PATTERN, SPOOL_HEADER
from monitor import problems
from monitor.api.parsing import SMALL_BODY
from monitor.api.request_limits import replay
from monitor.api.requests import ProcessMetrics
from monitor.ingestion import orders
from monitor.ingestion.queue import ReportQueue
from monitor.ingestion.reports import ReportResult
from monitor.schemas import MAX_FIELDS, ReportIn

PATH = re.compile(f"{API}/runs/({RUN_ID_PATTERN})/reports")
JSON = b"application/json"
SPOOL, WRITER = SPOOL_HEADER.lower().encode(), WRITER_HEADER.lower().encode()
MAX_SPOOL_DIGITS = 18
MetricName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,128}\Z")]


class Head(NamedTuple):
    """The path and the headers of a report, parsed."""

    run_id: str
    writer: Writer | None
    undelivered_bytes: int | None


ROUTE = SimpleNamespace(path_format=f"{API}/runs/{{run_id}}/reports")
"""Route of a report as the log shows it."""


class PlainReports:
    """ASGI middleware, the innermost one: behind the authentication, and behind the limits, which have the body."""

    def __init__(self, app: ASGIApp, reports: ReportQueue, metrics: ProcessMetrics) -> None:
        self._app, self._reports, self._metrics = app, reports, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = plain_head(scope)
        if head is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        report = None if message.get("more_body", False) else await parse(body)
        if report is None:
            await self._app(scope, replay(message, receive), send)
            return
        scope["route"], scope["path_params"] = ROUTE, {"run_id": head.run_id}
        try:
            content = to_json(await answer(self._reports, self._metrics, report, head))
        except problems.ERRORS as error:
            await problems.response_to(Request(scope), error)(scope, receive, send)
            return
        await Response(content, media_type="application/json")(scope, receive, send)


async def answer(reports: ReportQueue, metrics: ProcessMetrics, report: ReportIn, head: Head) -> dict[str, Any]:
    """Store the report, and return the answer to its sender once it is stored. Raises what prevented it."""
    run_id, writer, undelivered_bytes = head
    result = await reports.store(run_id, report, undelivered_bytes=undelivered_bytes, writer=writer)
    metrics.count_report(result)
    return to_wire(result, writer)


def to_wire(result: ReportResult, writer: Writer | None) -> dict[str, Any]:
    """The answer as the trainer gets it."""
    answer: dict[str, Any] = {
        "accepted": result.num_accepted,
        "duplicates": result.num_duplicates,
        "orders": [orders.to_wire(order) for order in result.open_orders],
    }
    if result.question is not None:
        answer["preflight"] = result.question
    if result.notices:
        answer["notices"] = [notice.to_wire() for notice in result.notices]
    if writer is not None:
        answer |= {"lease": result.lease_seconds, "writer": result.lease_process}
    return answer


def plain_head(scope: Scope) -> Head | None:
    """Parse what a plain report says before its body; None: the request is no plain report."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    match = PATH.fullmatch(scope["path"])
    if match is None:
        return None
    principal = scope["state"]["principal"]
    if TokenScope.REPORT not in principal.scopes or principal.is_bound:
        return None
    headers = dict(scope["headers"])
    if len(headers) != len(scope["headers"]) or headers.get(b"content-type") != JSON:  # one of them came twice
        return None
    spool, writer = headers.get(SPOOL), headers.get(WRITER)
    if spool is not None and not (spool.isdigit() and len(spool) <= MAX_SPOOL_DIGITS):
        return None
    try:
        sent_by = None if writer is None else Writer.from_header(writer.decode("latin-1"))
    except ValueError:
        return None
    return Head(match[1], sent_by, None if spool is None else int(spool))


class PlainReport(msgspec.Struct, forbid_unknown_fields=True):
    """A `ReportIn` in the usual form. msgspec parses and validates it in the time of parsing."""

    segment: Annotated[int, Meta(ge=0, lt=2**31)]
    steps: list[Annotated[int, Meta(ge=0, lt=MAX_STEP)]] = []
    times: list[Annotated[float, Meta(ge=0, lt=MAX_TIME)]] = []
    metrics: Annotated[dict[MetricName, list[Any]], Meta(max_length=MAX_FIELDS)] = {}
    events: Annotated[list[Any], Meta(max_length=0)] = []


FIELDS = set(PlainReport.__struct_fields__)
PLAIN = msgspec.json.Decoder(PlainReport)
ANY: TypeAdapter[ReportIn] = TypeAdapter(ReportIn)


async def parse(body: bytes) -> ReportIn | None:
    """The report; None for a body that the routes refuse. A large one is parsed in a thread."""
    return parse_now(body) if len(body) <= SMALL_BODY else await run_in_threadpool(parse_now, body)


def parse_now(body: bytes) -> ReportIn | None:
    """Parse a report in this thread."""
    try:
        plain = PLAIN.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        try:
            return ANY.validate_python(from_json(body))
        except ValueError:
            return None
    return ReportIn.model_construct(
        FIELDS, segment=plain.segment, steps=plain.steps, times=plain.times, metrics=plain.metrics
    )
