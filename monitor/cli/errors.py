"""A command that fails because of its input prints one line on standard error and exits with code 2."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import typer
from alembic.util.exc import CommandError
from pydantic import ValidationError

from db.cli.command_engine import as_typed_here, server_is_installed
from db.store.engine import BadDatabaseUrl, NoStore, first_line, shown
from lossguard.vocabulary.errors import ConfigurationError
from monitor.settings import Settings, UnsafeBind


def exit_with(reason: object) -> typer.Exit:
    """Print the reason as one line on standard error; raise what is returned, to exit with code 2."""
    program = "lossguard-server" if server_is_installed() else "monitor"
    typer.echo(f"{program}: {as_typed_here(str(reason))}", err=True)
    return typer.Exit(2)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the settings, and of the database that they name, into one line and exit code 2."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        shown_value = "" if name == "token" else f"={first['input']!r}"
        raise exit_with(
            f"LOSSGUARD_{name.upper()}{shown_value}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
    except NoStore as error:
        raise exit_with(f"{error}; set LOSSGUARD_DATABASE_URL to the URL of your store") from None
    except (UnsafeBind, BadDatabaseUrl, ConfigurationError) as error:
        raise exit_with(error) from None
    except (sa.exc.DBAPIError, CommandError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        raise exit_with(f"cannot use the database {shown(Settings().database_url)}: {reason}") from None
