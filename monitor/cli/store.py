"""The store and the settings that the environment names, for commands."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from sqlalchemy.orm import Session

from db import migrate
from db.store.engine import check_store, create_engine, pre_release, reading, shown, writing
from monitor.cli.errors import one_line_errors
from monitor.settings import Settings, table


def print_settings() -> None:
    """Print the settings in the environment as a Markdown table, and the store that counts here."""
    typer.echo(table())
    with one_line_errors():
        typer.echo(f"\nLOSSGUARD_DATABASE_URL is {shown(Settings().database_url)} here.")


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
                if reason := pre_release(session.connection()):
                    raise migrate.PreRelease(reason)
                yield session
        finally:
            engine.dispose()
