"""Fixtures that several folders share, and the rule about system programs that a test needs."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

from db import migrate
from db.dialects import postgresql
from db.runs import pages
from db.store.engine import create_engine
from tests import object_store, postgres, scheduling

# The models under test are tiny: synchronising threads costs more than it saves. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Else glibc returns the tensors of a step to the system and asks for them again: a tenth of a training's CPU time.
# Read when a process starts, so it is for the processes that this one starts.
os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}

# While the tests are imported everything that is made stays; collecting garbage meanwhile is a fifth of the time.
gc.disable()

# A suite that was started in the background ignores SIGINT, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

FIRST_ENGINES: dict[tuple[str, str, str | None], sa.Engine] = {}
"""Of each database, driver and isolation level, the engine that connected first in this process."""


@sa.event.listens_for(sa.Engine, "engine_connect")
def _share_compiled_statements(connection: sa.Connection) -> None:
    """Nearly every test has a store, thus an engine, of its own, and each engine would compile every statement anew."""
    engine, dialect = connection.engine, connection.dialect
    key = (dialect.name, dialect.driver, getattr(dialect, "_on_connect_isolation_level", None))
    first = FIRST_ENGINES.setdefault(key, engine)
    engine.dialect = connection.dialect = first.dialect
    engine._compiled_cache = first._compiled_cache


# A busy machine may take its time for a connection or a search, and for an example; that is no failure.
postgresql.CONNECT_SECONDS = 300
pages.SEARCH_SECONDS = 300.0
hypothesis.settings.register_profile(
    "lossguard", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("lossguard")

INSTALLED = {
    "postgresql": bool(postgres.PROGRAMS),
    "chromium": shutil.which("chromium") is not None,
    "prometheus": all(map(shutil.which, ("prometheus", "promtool"))),
    "alertmanager": all(map(shutil.which, ("prometheus-alertmanager", "amtool"))),
    "kustomize": shutil.which("kustomize") is not None,
    "moto_server": object_store.PROGRAM is not None and object_store.HAS_CLIENT,
    "nginx": shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None,
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a file whose tests are all deselected: frameworks take seconds."""
    if collection_path.suffix != ".py" or not config.option.markexpr:
        return None
    source = collection_path.read_text(encoding="utf-8")
    return True if scheduling.is_deselected(source, config.option.markexpr) else None


OF_A_STORE = {"migrated_file", "database_url", "open_page", "collector"}
"""Fixtures of the tests that `make test-fast` leaves out."""


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that have a store. Skip those whose program is missing, except in continuous integration."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = scheduling.longest_first(items)
    for item in items:
        if OF_A_STORE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.store)
        for mark in item.iter_markers("needs"):
            (name,) = mark.args
            if not INSTALLED[name] and os.environ.get("CI") != "true":
                item.add_marker(pytest.mark.skip(reason=f"{name} is not installed; `make system` installs it"))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports made: Streamlit runs a full collection after every page."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server that the tests of this process share."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[object_store.Server]:
    """An S3-compatible server that the tests of this process share; each makes a bucket of its own."""
    with object_store.running() as server:
        yield server


@pytest.fixture
def bucket(object_store_server: object_store.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, which fsspec reaches with the credentials of the environment."""
    for name, value in object_store_server.environment.items():
        monkeypatch.setenv(name, value)
    yield object_store_server.create_bucket(f"b{os.urandom(6).hex()}")
    object_store_server.accept_requests()


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
    _skip_fsync(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(migrated_file: Path, tmp_path: Path) -> Iterator[sa.Engine]:
    """A store at the newest schema on SQLite alone, for tests of the layers above the store."""
    path = tmp_path / "lossguard.db"
    shutil.copy(migrated_file, path)
    engine = create_engine(f"sqlite:///{path}")
    _skip_fsync(engine)
    yield engine
    engine.dispose()


def _skip_fsync(engine: sa.Engine) -> None:
    """SQLite need not wait for the disk at every commit: no test cuts the power."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
