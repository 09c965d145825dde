"""An application over a fresh store, and a client for it."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import Clock, TestClient


@pytest.fixture
def clock() -> Clock:
    """The clock of `http` and `http_on_both`."""
    return Clock()


@pytest.fixture
def http(sqlite_engine: sa.Engine, clock: Clock) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=clock)) as client:
        yield client


@pytest.fixture
def http_on_both(engine: sa.Engine, clock: Clock) -> Iterator[TestClient]:
    """The same on SQLite and on PostgreSQL."""
    with TestClient(create_app(Settings(), engine=engine, clock=clock)) as client:
        yield client
