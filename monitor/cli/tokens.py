"""python -m monitor token: make, list and revoke the tokens of the store.

python -m monitor token create trainers --scope report --project gpt-small
python -m monitor token list
python -m monitor token revoke trainers
"""

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from db import access, migrate
from db.access import Scope, TokenExists
from db.engine import create_engine, writing
from monitor.cli.errors import one_sentence, stop
from monitor.settings import Settings

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Name = Annotated[str, typer.Argument(help="what the audit trail and the logs call it")]


@contextmanager
def _store() -> Iterator[Session]:
    with one_sentence():
        engine = create_engine(Settings().database_url)
        try:
            migrate.upgrade(engine)
            with writing(engine) as session:
                yield session
        finally:
            engine.dispose()


def _by() -> str:
    return f"command line ({getpass.getuser()})"


@app.command()
def create(
    name: Name,
    scope: Annotated[list[Scope], typer.Option(help="what it is good for; may be given more than once")],
    project: Annotated[str | None, typer.Option(help="the only project it is good for; all by default")] = None,
) -> None:
    """Make a token and print it: this once, the store keeps its digest only."""
    try:
        with _store() as session:
            row, token = access.create_token(session, name=name, scopes=scope, project=project, now=time.time())
            details = {"name": row.name, "scopes": row.scopes, "project": project}
            access.record(session, who=_by(), action="token create", run=None, details=details, now=time.time())
    except TokenExists as error:
        raise stop(error) from None
    typer.echo(token)


@app.command("list")
def list_all() -> None:
    """Every token that was made, without the token itself."""
    with _store() as session:
        for row in access.tokens(session):
            state = "good" if row.revoked_at is None else f"revoked {_day(row.revoked_at)}"
            where = f"project {row.project}" if row.project else "every project"
            typer.echo(f"{row.name}  {','.join(row.scopes)}  {where}  made {_day(row.created_at)}  {state}")


@app.command()
def revoke(name: Name) -> None:
    """Make a token worthless, from the next request on."""
    with _store() as session:
        known = access.revoke_token(session, name=name, now=time.time())
        if known:
            details = {"name": name}
            access.record(session, who=_by(), action="token revoke", run=None, details=details, now=time.time())
    if not known:
        raise stop(f"there is no token {name!r}; list them with: python -m monitor token list")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
