"""What a route asks for: a session that reads or writes, the time, the counters, the settings."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from db.engine import reading, writing
from monitor.ingestion.queue import ReportQueue
from monitor.settings import Settings
from monitor.telemetry.process_metrics import Counters


def _reading(request: Request) -> Iterator[Session]:
    with reading(request.app.state.engine) as session:
        yield session


def _writing(request: Request) -> Iterator[Session]:
    with request.app.state.counters.transaction(), writing(request.app.state.engine) as session:
        yield session


# Plain values come from coroutines: a plain function would be run in a thread, at the cost of two switches.
async def _now(request: Request) -> float:
    now: float = request.app.state.clock()
    return now


async def _counters(request: Request) -> Counters:
    counters: Counters = request.app.state.counters
    return counters


async def _intake(request: Request) -> ReportQueue:
    intake: ReportQueue = request.app.state.intake
    return intake


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


# scope="function": the transaction has ended before the answer is sent, so what is acknowledged is stored.
# max_concurrency: a request holds its connection while it waits for a thread to be answered in. All of these together
# are fewer than an engine has connections (15), or the others would wait for one in every thread that there is.
Reading = Annotated[Session, Depends(_reading, scope="function", max_concurrency=6)]
Writing = Annotated[Session, Depends(_writing, scope="function", max_concurrency=6)]
Now = Annotated[float, Depends(_now)]
Config = Annotated[Settings, Depends(_settings)]
Telemetry = Annotated[Counters, Depends(_counters)]
Reports = Annotated[ReportQueue, Depends(_intake)]
