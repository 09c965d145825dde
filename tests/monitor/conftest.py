"""Collectors over a fresh store."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.monitor.client import Clock, Pair, TestClient, collector


@pytest.fixture
def clock() -> Clock:
    """The clock of the collectors below."""
    return Clock()


@pytest.fixture
def http(sqlite_engine: sa.Engine, clock: Clock) -> Iterator[TestClient]:
    with collector(sqlite_engine, clock=clock) as client:
        yield client


@pytest.fixture
def http_on_both(engine: sa.Engine, clock: Clock) -> Iterator[TestClient]:
    """The same on SQLite and on PostgreSQL."""
    with collector(engine, clock=clock) as client:
        yield client


@pytest.fixture
def pair(sqlite_engine: sa.Engine, clock: Clock) -> Iterator[Pair]:
    """Two collectors with one store."""
    with collector(sqlite_engine, clock=clock) as first, collector(sqlite_engine, clock=clock) as second:
        yield first, second


@pytest.fixture
def pair_on_both(engine: sa.Engine, clock: Clock) -> Iterator[Pair]:
    """The same on SQLite and on PostgreSQL."""
    with collector(engine, clock=clock) as first, collector(engine, clock=clock) as second:
        yield first, second
