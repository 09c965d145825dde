"""The store's own commands.

python -m db upgrade     make the database, or bring it to the newest schema
python -m db check       tell whether the database fits the code (exit 1 when it does not)

The database is LOSSGUARD_DATABASE_URL, or --url; by default sqlite:///.lossguard/lossguard.db.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

import sqlalchemy as sa
import typer
from alembic.util.exc import CommandError

from db import migrate
from db.engine import DEFAULT_URL, BadDatabaseUrl, create_engine, first_line, shown

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
T = TypeVar("T")
Url = Annotated[str, typer.Option(envvar="LOSSGUARD_DATABASE_URL", help="sqlite:/// or postgresql:// URL")]


def _on_engine(url: str, do: Callable[[sa.Engine], T]) -> T:
    try:
        return do(create_engine(url))
    except (BadDatabaseUrl, sa.exc.DBAPIError, CommandError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        typer.echo(f"db: cannot use the database {shown(url)}: {reason}", err=True)
        raise typer.Exit(2) from None


@app.command()
def upgrade(url: Url = DEFAULT_URL) -> None:
    """Make the database, or bring it to the newest schema."""
    _on_engine(url, migrate.upgrade)
    typer.echo("the database is at the newest revision")


@app.command()
def check(url: Url = DEFAULT_URL) -> None:
    """Tell whether the database fits the code."""
    if difference := _on_engine(url, migrate.drift):
        typer.echo(difference, err=True)
        raise typer.Exit(1)
    typer.echo("the database fits the code")


if __name__ == "__main__":
    app()
