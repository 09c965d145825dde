"""Engines, sessions and the clock of a store, in SQLite (for one machine) or PostgreSQL (for teams)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from db.dialects.base import WRITES, Dialect
from db.dialects.base import BadDatabaseUrl as BadDatabaseUrl
from db.dialects.postgresql import PostgreSQL
from db.dialects.sqlite import SQLite

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (SQLite(), PostgreSQL())}
"""The databases that can hold a store. All that is particular to one of them is in its module in `db/dialects/`; its
driver is in pyproject.toml."""
DEFAULT_URL = "sqlite:///.lossguard/lossguard.db"
BASELINE = "0001"
"""The first migration."""
FIRST_LATER = "0101"
"""The second one: pre-releases gave their migrations the numbers in between."""

NEWEST_COLUMN = "steps", "values"
"""The column that came last into the baseline: the stores of pre-releases that were numbered 0001 lack it."""
MIN_OFFSET = 1.0
"""Seconds by which the clocks must differ to be corrected; asking the database takes time, too."""


class NoStore(BadDatabaseUrl):
    """There is no store at the URL."""


def dialect_of(bind: sa.Engine | sa.Connection) -> Dialect:
    """The dialect of an engine or a connection."""
    return DIALECTS[bind.dialect.name]


def parse_url(url: str) -> tuple[Dialect, sa.URL]:
    """The dialect and the parts of a database URL. Raises BadDatabaseUrl."""
    examples = " or ".join(dialect.url_example for dialect in DIALECTS.values())
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is not a number
        raise BadDatabaseUrl(f"{shown(url)} is not a database URL; write {examples}") from None
    name = parsed.get_backend_name()
    if name not in DIALECTS:
        raise BadDatabaseUrl(f"{name} is not supported; use {examples}")
    return DIALECTS[name], parsed


def shown(url: str) -> str:
    """A database URL as it may be printed: without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        _, at, host = url.rpartition("@")  # where the password of such a text begins cannot be known
        return repr(f"...{at}{host}" if at else url)


def create_engine(url: str = DEFAULT_URL, *, max_idle_seconds: float | None = None, **options: Any) -> sa.Engine:
    """An engine for `url`; its errors do not show the values of a statement.

    `max_idle_seconds`: a server rolls back a transaction in which this process does nothing for so long, because others
    wait for the runs that it has locked. Raises BadDatabaseUrl when the database is not supported, or when its folder
    cannot be made.
    """
    dialect, parsed = parse_url(url)
    engine = dialect.create_engine(parsed, **options)
    if max_idle_seconds is not None:
        dialect.bound_idle_transactions(engine, max_idle_seconds)
    return engine


def check_store(url: str) -> None:
    """Raise NoStore where the file of the store is missing: opening it only to read would create it."""
    dialect, parsed = parse_url(url)
    file = dialect.store_file(parsed)
    if dialect.is_file and (file is None or not file.is_file()):
        raise NoStore(f"there is no store at {file or url}")


def pre_release(connection: sa.Connection) -> str | None:
    """Return why no release may use the store, in one sentence, if a pre-release wrote it; None: none did."""
    inspector, (table, column) = sa.inspect(connection), NEWEST_COLUMN
    has_table = inspector.has_table
    found = sa.text("SELECT version_num FROM alembic_version")
    current = connection.scalar(found) if has_table("alembic_version") else None
    columns = inspector.get_columns(table) if has_table(table) else ()
    is_newest = any(each["name"] == column for each in columns)
    is_older = has_table("runs") if current is None else BASELINE < current < FIRST_LATER or not is_newest
    return (
        f"a pre-release of Lossguard wrote this store (schema {current or 'without a number'}), and this version cannot"
        " read it; keep it, and export its runs to Parquet with the version that wrote it"
        if is_older
        else None
    )


def first_line(error: object) -> str:
    """The first line of a driver's error, which may have many."""
    return str(error).partition("\n")[0]


@contextmanager
def reading(engine: sa.Engine) -> Iterator[Session]:
    """A session for queries: all of them see the moment of the first, so that no two contradict each other."""
    with Session(engine.execution_options(**dialect_of(engine).read_options)) as session:
        yield session


@contextmanager
def reading_anew(session: Session) -> Iterator[Session]:
    """A session for queries of the same store, which sees what was committed since the other one's first query."""
    engine = session.get_bind()
    assert isinstance(engine, sa.Engine), "the sessions of a store are made with its engine"
    with reading(engine.execution_options(**dict.fromkeys(WRITES, False))) as anew:
        yield anew


@contextmanager
def writing(engine: sa.Engine) -> Iterator[Session]:
    """A session whose transaction is committed at the end of the block, or rolled back whole if the block raises."""
    with Session(engine.execution_options(**WRITES), expire_on_commit=False) as session, session.begin():
        yield session


class StoreClock:
    """The clock that several collectors of one store agree on: this machine's, corrected by that of the database."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._offset = clock, 0.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self._clock() + self._offset

    def observe(self, database: float, own: float) -> None:
        """The clock of the database read `database` when this machine's read `own`."""
        offset = database - own
        self._offset = offset if abs(offset) >= MIN_OFFSET else 0.0
