"""The store that the environment names, for commands."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from db import migrate
from db.store.engine import check_store, create_engine, reading, writing
from monitor.cli.errors import one_line_errors
from monitor.settings import Settings


@contextmanager
def open_store(*, write: bool = False) -> Iterator[Session]:
    """A session on the store at LOSSGUARD_DATABASE_URL. To `write`, the store is created or migrated if needed.

    Exits with one line on standard error when the store cannot be used.
    """
    with one_line_errors():
        url = Settings().database_url
        if not write:
            check_store(url)
        engine = create_engine(url)
        try:
            if write:
                migrate.upgrade(engine)
            with writing(engine) if write else reading(engine) as session:
                yield session
        finally:
            engine.dispose()
