"""Fixtures that several folders share, and the rule about programs of the system that a test needs."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import migrate
from db.engine import create_engine
from tests import postgres

# The models under test are tiny: threads that wait for each other cost more than they bring. Set before torch is there.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite that was started in the background is deaf to SIGINT, and so would be every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

HAS = {
    "postgresql": bool(postgres.PROGRAMS),
    "chromium": shutil.which("chromium") is not None,
    "prometheus": all(map(shutil.which, ("prometheus", "promtool"))),
    "alertmanager": all(map(shutil.which, ("prometheus-alertmanager", "amtool"))),
    "nginx": shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, and say why, the tests whose program is not installed; continuous integration may leave out none."""
    for item in items:
        for mark in item.iter_markers("needs"):
            (name,) = mark.args
            if not HAS[name] and os.environ.get("CI") != "true":
                item.add_marker(pytest.mark.skip(reason=f"{name} is not installed; `make system` says how to get it"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server that the tests of this session share."""
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/lossguard.db"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    name = "t" + os.urandom(6).hex()
    admin = create_engine(server.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.url(name)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A store at the newest schema, once on SQLite and once on PostgreSQL."""
    engine = create_engine(database_url)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A store at the newest schema on SQLite alone, for tests of what lies above the store."""
    engine = create_engine(f"sqlite:///{tmp_path}/lossguard.db")
    migrate.upgrade(engine)
    yield engine
    engine.dispose()
