"""What a command that cannot go on says: one sentence on standard error, exit code 2."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import typer
from alembic.util.exc import CommandError
from pydantic import ValidationError

from db.engine import BadDatabaseUrl, NoStore, first_line, shown
from monitor.settings import Settings, UnsafeBind


def stop(reason: object) -> typer.Exit:
    """One sentence on standard error, exit code 2."""
    typer.echo(f"monitor: {reason}", err=True)
    return typer.Exit(2)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Tell what is wrong with the settings or with the database that they name."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        raise stop(f"LOSSGUARD_{str(first['loc'][0]).upper()}={first['input']!r}: {first['msg']}") from None
    except NoStore as error:
        raise stop(f"{error}; LOSSGUARD_DATABASE_URL names it") from None
    except (UnsafeBind, BadDatabaseUrl) as error:
        raise stop(error) from None
    except (sa.exc.DBAPIError, CommandError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        raise stop(f"cannot use the database {shown(Settings().database_url)}: {reason}") from None
