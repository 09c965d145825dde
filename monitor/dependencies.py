"""What a route asks for: a session that reads or writes, the time, the counters, the settings."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from db.engine import reading, writing
from monitor.settings import Settings
from monitor.telemetry import Counters


def _reading(request: Request) -> Iterator[Session]:
    with reading(request.app.state.engine) as session:
        yield session


def _writing(request: Request) -> Iterator[Session]:
    with _counters(request).transaction(), writing(request.app.state.engine) as session:
        yield session


def _now(request: Request) -> float:
    now: float = request.app.state.clock()
    return now


def _counters(request: Request) -> Counters:
    counters: Counters = request.app.state.counters
    return counters


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


# scope="function": the transaction has ended before the answer is sent, so what is acknowledged is stored.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]
Now = Annotated[float, Depends(_now)]
Config = Annotated[Settings, Depends(_settings)]
Telemetry = Annotated[Counters, Depends(_counters)]
