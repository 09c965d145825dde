"""The collector that all requests share, and the dependencies of the routes: it, sessions, the time, a claim."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Header, Request
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session

from db.store.engine import reading, writing
from lossguard.spool.writer import WRITER_HEADER, Writer
from monitor.api.auth import FailedAttempts
from monitor.api.requests import ProcessMetrics
from monitor.ingestion.lease import Claim
from monitor.ingestion.queue import ReportQueue
from monitor.ingestion.waiting_rows import WaitingRows
from monitor.problems import Problem
from monitor.scored_runs import ScoredRuns
from monitor.settings import Settings
from monitor.telemetry.run_metrics import RunMetrics


@dataclass(kw_only=True, slots=True)
class Collector:
    """The objects that all requests of an application share: `app.state.collector`."""

    settings: Settings
    engine: sa.Engine
    clock: Callable[[], float]
    """Unix seconds."""
    registry: CollectorRegistry
    metrics: ProcessMetrics
    run_metrics: RunMetrics
    reports: ReportQueue
    waiting_rows: WaitingRows
    needs_token: bool
    """True once a token is set or stored: then a request without one costs no look-up."""
    scored_runs: ScoredRuns = field(default_factory=ScoredRuns)
    failed_attempts: FailedAttempts = field(default_factory=FailedAttempts)


# Plain values come from coroutines: a plain function would be run in a thread, at the cost of two switches.
async def _collector(request: Request) -> Collector:
    collector: Collector = request.app.state.collector
    return collector


Shared = Annotated[Collector, Depends(_collector)]


def _read_session(collector: Shared) -> Iterator[Session]:
    with reading(collector.engine) as session:
        yield session


def _write_session(collector: Shared) -> Iterator[Session]:
    with collector.metrics.time_transaction(), writing(collector.engine) as session:
        yield session


async def _now(collector: Shared) -> float:
    return collector.clock()


async def _writer(text: Annotated[str | None, Header(alias=WRITER_HEADER)] = None) -> Writer | None:
    try:
        return None if text is None else Writer.from_header(text)
    except ValueError as error:
        raise Problem(422, "the request is malformed", str(error), ["header", WRITER_HEADER.lower()]) from None


SentBy = Annotated[Writer | None, Depends(_writer)]


async def _claim(collector: Shared, writer: SentBy) -> Claim:
    return Claim(writer=writer, now=collector.clock(), seconds=collector.settings.lease_seconds)


# scope="function": the transaction has ended before the response is sent, so what is acknowledged is stored.
# max_concurrency: a request holds its connection while it waits for a thread that sends its response. All of these
# together need fewer connections than an engine has (15): otherwise requests in every thread could wait for one.
ReadSession = Annotated[Session, Depends(_read_session, scope="function", max_concurrency=6)]
WriteSession = Annotated[Session, Depends(_write_session, scope="function", max_concurrency=6)]
Now = Annotated[float, Depends(_now)]
Claimed = Annotated[Claim, Depends(_claim)]
