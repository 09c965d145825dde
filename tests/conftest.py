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


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file at the newest schema; a copy of it costs far less than the migrations."""
    path = tmp_path_factory.mktemp("migrated") / "lossguard.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_template(postgres_server: postgres.Server) -> str:
    """The name of a PostgreSQL database at the newest schema, to be copied."""
    _migrate(postgres_server.create_database("migrated"))
    return "migrated"


def _migrate(url: str) -> None:
    engine = create_engine(url)
    migrate.upgrade(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database, once on SQLite and once on PostgreSQL: empty, or at the newest schema if the test uses `engine`."""
    migrated = "engine" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "lossguard.db"
        if migrated:
            shutil.copy(request.getfixturevalue("migrated_file"), path)
        yield f"sqlite:///{path}"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    template = request.getfixturevalue("migrated_template") if migrated else "template1"
    name = "t" + os.urandom(6).hex()
    yield server.create_database(name, template=template)
    server.drop_database(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A store at the newest schema, once on SQLite and once on PostgreSQL."""
    engine = create_engine(database_url)
    _hurry(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(migrated_file: Path, tmp_path: Path) -> Iterator[sa.Engine]:
    """A store at the newest schema on SQLite alone, for tests of what lies above the store."""
    path = tmp_path / "lossguard.db"
    shutil.copy(migrated_file, path)
    engine = create_engine(f"sqlite:///{path}")
    _hurry(engine)
    yield engine
    engine.dispose()


def _hurry(engine: sa.Engine) -> None:
    """Let SQLite not wait for the disk at every commit: no test cuts the power."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
