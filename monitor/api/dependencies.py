"""Dependencies of the routes: a session that reads or writes, the time, the settings, the metrics, the report queue."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from db.store.engine import reading, writing
from lossguard.spool.writer import WRITER_HEADER, Writer
from monitor.ingestion.lease import Claim
from monitor.ingestion.queue import ReportQueue
from monitor.problems import Problem
from monitor.settings import Settings
from monitor.telemetry.process_metrics import ProcessMetrics


def _read_session(request: Request) -> Iterator[Session]:
    with reading(request.app.state.engine) as session:
        yield session


def _write_session(request: Request) -> Iterator[Session]:
    with request.app.state.metrics.time_transaction(), writing(request.app.state.engine) as session:
        yield session


# Plain values come from coroutines: a plain function would be run in a thread, at the cost of two switches.
async def _now(request: Request) -> float:
    now: float = request.app.state.clock()
    return now


async def _metrics(request: Request) -> ProcessMetrics:
    metrics: ProcessMetrics = request.app.state.metrics
    return metrics


async def _report_queue(request: Request) -> ReportQueue:
    queue: ReportQueue = request.app.state.report_queue
    return queue


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _writer(text: Annotated[str | None, Header(alias=WRITER_HEADER)] = None) -> Writer | None:
    try:
        return None if text is None else Writer.from_header(text)
    except ValueError as error:
        raise Problem(422, "the request is malformed", str(error), ["header", WRITER_HEADER.lower()]) from None


SentBy = Annotated[Writer | None, Depends(_writer)]


async def _claim(request: Request, writer: SentBy) -> Claim:
    state = request.app.state
    return Claim(writer=writer, now=state.clock(), seconds=state.settings.lease_seconds)


# scope="function": the transaction has ended before the response is sent, so what is acknowledged is stored.
# max_concurrency: a request holds its connection while it waits for a thread that sends its response. All of these
# together need fewer connections than an engine has (15): otherwise requests in every thread could wait for one.
ReadSession = Annotated[Session, Depends(_read_session, scope="function", max_concurrency=6)]
WriteSession = Annotated[Session, Depends(_write_session, scope="function", max_concurrency=6)]
Now = Annotated[float, Depends(_now)]
Claimed = Annotated[Claim, Depends(_claim)]
Config = Annotated[Settings, Depends(_settings)]
Metrics = Annotated[ProcessMetrics, Depends(_metrics)]
Reports = Annotated[ReportQueue, Depends(_report_queue)]
