"""The store and the settings that the environment names, for commands: a mistake is one line, and exit code 2."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import typer
from alembic.util.exc import CommandError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from db import migrate
from db.cli.command_engine import as_typed_here, server_is_installed
from db.records.access import TokenExists
from db.store.engine import (
    BadDatabaseUrl,
    NoStore,
    check_store,
    create_engine,
    first_line,
    pre_release,
    reading,
    shown,
    writing,
)
from lossguard.vocabulary.errors import ConfigurationError
from monitor.problems import Problem
from monitor.settings import Settings, UnsafeBind, table


def exit_with(reason: object) -> typer.Exit:
    """Print the reason as one line on standard error; raise what is returned, to exit with code 2."""
    program = "lossguard-server" if server_is_installed() else "monitor"
    typer.echo(f"{program}: {as_typed_here(str(reason))}", err=True)
    return typer.Exit(2)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what is wrong with the settings, the database that they name, or a request into one line and exit code 2."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        given = "" if name == "token" else f"={first['input']!r}"
        reason = f"LOSSGUARD_{name.upper()}{given}: {first['msg'].removeprefix('Value error, ')}"
        raise exit_with(reason) from None
    except NoStore as error:
        raise exit_with(f"{error}; set LOSSGUARD_DATABASE_URL to the URL of your store") from None
    except (UnsafeBind, BadDatabaseUrl, ConfigurationError, Problem, TokenExists) as error:
        raise exit_with(error) from None
    except (sa.exc.DBAPIError, CommandError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        raise exit_with(f"cannot use the database {shown(Settings().database_url)}: {reason}") from None


def print_settings() -> None:
    """Print the settings in the environment as a Markdown table, and the store that counts here."""
    typer.echo(table())
    with one_line_errors():
        typer.echo(f"\nLOSSGUARD_DATABASE_URL is {shown(Settings().database_url)} here.")


@contextmanager
def open_store(*, write: bool = False) -> Iterator[Session]:
    """A session on the store at LOSSGUARD_DATABASE_URL. To `write`, the store is created or migrated if needed.

    Exits with one line on standard error when the store cannot be used, or refuses what is asked of it.
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


def author() -> str:
    """The person at the command line, as the audit trail names them."""
    return f"command line ({getpass.getuser()})"
