"""python -m monitor token: create, install, list and revoke the tokens of the store.

python -m monitor token create trainers --scope report --project gpt-small
python -m monitor token install compose-trainer deploy/secrets/trainer_token --scope report --project trainer
python -m monitor token create job-42 --scope report --run 42
python -m monitor token list
python -m monitor token revoke trainers
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from db.cli.command_engine import as_typed_here
from db.records import access
from db.records.access import Scope
from monitor.cli.store import author, exit_with, open_store

app = typer.Typer(help=as_typed_here(__doc__), no_args_is_help=True, add_completion=False)
Name = Annotated[str, typer.Argument(help="name of the token in the audit trail and the logs")]
Scopes = Annotated[list[Scope], typer.Option("--scope", help="what the token allows; repeatable")]
Project = Annotated[str | None, typer.Option(help="the only project that the token covers; default: all")]
MIN_LENGTH = 32
"""Characters of a token that was made elsewhere: a guess must be hopeless."""


def _record(session: Session, action: str, details: dict[str, Any]) -> None:
    access.record(session, who=author(), action=action, run=None, details=details, now=time.time())


@app.command()
def create(
    name: Name,
    scope: Scopes,
    project: Project = None,
    run: Annotated[str | None, typer.Option(help="the id of the only run that it covers; default: all")] = None,
) -> None:
    """Create a token and print it. It is printed only now: the store keeps its digest alone."""
    values: dict[str, Any] = {"name": name, "scopes": [*scope], "project": project, "run": run}
    with open_store(write=True) as session:
        _, token = access.create_token(session, now=time.time(), **values)
        _record(session, "token create", values)
    typer.echo(token)


@app.command()
def install(
    name: Name,
    file: Annotated[Path, typer.Argument(help="a file with the token alone; its user reads it there, too")],
    scope: Scopes,
    project: Project = None,
) -> None:
    """Install the token that a file contains. A token that had the name before is no longer valid then.

    Does nothing if it is installed already, and leaves it revoked if it is.
    """
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise exit_with(f"cannot read a token from {file}: {error}") from None
    if len(token) < MIN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise exit_with(f"{file} must contain a token of at least {MIN_LENGTH} printable characters, without spaces")
    values: dict[str, Any] = {"name": name, "scopes": [*scope], "project": project}
    with open_store(write=True) as session:
        changed = access.install_token(session, token=token, now=time.time(), **values)
        if changed:
            _record(session, "token install", values)
    typer.echo(f"{name}: {'installed' if changed else 'was installed already'}")


@app.command("list")
def list_all() -> None:
    """List all tokens, without their secrets."""
    with open_store(write=True) as session:
        for row in access.tokens(session):
            state = "valid" if row.revoked_at is None else f"revoked {_day(row.revoked_at)}"
            where = f"project {row.project}" if row.project else "every project"
            where += f", run {row.run}" if row.run else ""
            typer.echo(f"{row.name}  {','.join(row.scopes)}  {where}  created {_day(row.created_at)}  {state}")


@app.command()
def revoke(name: Name) -> None:
    """Revoke a token, effective from the next request."""
    with open_store(write=True) as session:
        known = access.revoke_token(session, name=name, now=time.time())
        if known:
            _record(session, "token revoke", {"name": name})
    if not known:
        raise exit_with(f"there is no token {name!r}; list them with: python -m monitor token list")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
