"""The store's own commands.

python -m db upgrade     make the database, or bring it to the newest schema
python -m db downgrade REVISION     take the newest migrations back, down to REVISION
python -m db check       tell whether the database fits the code (exit 1 when it does not)
python -m db prune --days 90 [--dry-run]     delete the runs that ended so long ago, with all that belongs to them
python -m db export RUN -o FILE              write a run to FILE.parquet (the whole run) or FILE.csv (its steps)
python -m db import FILE [--as NEW_ID]       take a run from such a file; a run that is there is never overwritten
python -m db backup -o FILE     copy a SQLite store while collectors write to it

The database is LOSSGUARD_DATABASE_URL, or --url; by default sqlite:///.lossguard/lossguard.db.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import sqlalchemy as sa
import typer
from alembic.util.exc import CommandError

from db import access, commands, migrate, queries
from db.engine import (
    DEFAULT_URL,
    BadDatabaseUrl,
    NoStore,
    check_store,
    create_engine,
    first_line,
    reading,
    shown,
    writing,
)
from db.files import backup, imports
from db.files.export import Format, RunChanged, UnknownRun, stream
from db.files.record import RunExists
from lossguard.states import RunState

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
T = TypeVar("T")
NOTHING = "nothing is that old"
Url = Annotated[str, typer.Option(envvar="LOSSGUARD_DATABASE_URL", help="sqlite:/// or postgresql:// URL")]


def _on_engine(url: str, do: Callable[[sa.Engine], T], *, new: bool = False) -> T:
    """`new`: the store may be one that is not there yet."""
    try:
        if not new:
            check_store(url)
        engine = create_engine(url)
        try:
            return do(engine)
        finally:
            engine.dispose()
    except NoStore as error:
        raise _refused(f"{error}; LOSSGUARD_DATABASE_URL or --url names it") from None
    except (BadDatabaseUrl, sa.exc.DBAPIError, CommandError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        raise _refused(f"cannot use the database {shown(url)}: {reason}") from None


@app.command()
def upgrade(url: Url = DEFAULT_URL) -> None:
    """Make the database, or bring it to the newest schema."""
    _on_engine(url, migrate.upgrade, new=True)
    typer.echo("the database is at the newest revision")


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="the revision to be at afterwards, such as 0007")],
    url: Url = DEFAULT_URL,
) -> None:
    """Take migrations back, with what the older schema has no place for: make a backup first."""
    _on_engine(url, lambda engine: migrate.downgrade(engine, revision))
    typer.echo(f"the database is at revision {revision}")


@app.command()
def check(url: Url = DEFAULT_URL) -> None:
    """Tell whether the database fits the code."""
    if difference := _on_engine(url, migrate.drift):
        typer.echo(difference, err=True)
        raise typer.Exit(1)
    typer.echo("the database fits the code")


@app.command()
def prune(
    days: Annotated[float, typer.Option(min=0, help="runs that ended and were last heard of so many days ago")],
    url: Url = DEFAULT_URL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and delete nothing")] = False,
) -> None:
    """Delete runs that ended long ago; runs that are not finished, interrupted or failed stay."""
    for line in _on_engine(url, lambda engine: _prune(engine, days, dry_run)):
        typer.echo(line)


def _prune(engine: sa.Engine, days: float, dry_run: bool) -> list[str]:
    now = time.time()
    with reading(engine) as session:
        old = [(run.id, run.project, run.state) for run in queries.ended_before(session, time=now - 86_400 * days)]
    if dry_run:
        return [f"would delete {run_id} ({project}, {state})" for run_id, project, state in old] or [NOTHING]
    deleted = []
    for run_id, project, state in old:
        with writing(engine) as session:  # one run a transaction: reports of others are not kept waiting
            run = commands.lock_run(session, run_id=run_id)
            if run is None or run.state == RunState.RUNNING:
                continue  # deleted or taken up again meanwhile
            access.record(session, who="python -m db prune", action="delete", run=run_id, details={}, now=now)
            commands.delete_run(session, run=run)
        deleted.append(f"deleted {run_id} ({project}, {state})")
    return deleted or [NOTHING]


@app.command("export")
def export(
    run: Annotated[str, typer.Argument(help="the id of the run")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="RUN.parquet by default")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write a run to a file: .parquet holds the whole run, .csv its steps alone."""
    path = output or Path(f"{run}.parquet")
    formats = {f".{one}": one for one in Format}
    if path.suffix not in formats:
        raise _refused(f"{path}: the name of the file ends in {' or '.join(formats)}")
    try:
        _on_engine(url, lambda engine: _export(engine, run, path, formats[path.suffix]))
    except FileExistsError:
        raise _refused(f"{path} is there already; name another file with -o, or delete it") from None
    except FileNotFoundError:
        raise _refused(f"there is no folder {path.parent}; make it, or name another file with -o") from None
    except OSError as error:
        raise _refused(f"cannot write {path}: {error.strerror or error}") from None
    except (UnknownRun, RunChanged) as error:
        raise _refused(str(error)) from None
    typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _export(engine: sa.Engine, run_id: str, path: Path, format: Format) -> None:
    _check_schema(engine)
    pieces = stream(engine, run_id=run_id, format=format)
    first = next(pieces)  # an unknown run makes no file
    with path.open("xb") as file:
        try:
            file.write(first)
            file.writelines(pieces)
        except BaseException:
            path.unlink()
            raise


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="what `export` wrote, or a CSV with a column `step`")],
    run_id: Annotated[
        str | None, typer.Option("--as", help="the run's id in this store, where it is to differ")
    ] = None,
    project: Annotated[str | None, typer.Option(help="the project of a CSV's run")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Take a run from a file. A run that is there is never overwritten."""
    try:
        typer.echo(_on_engine(url, lambda engine: _import(engine, file, run_id, project), new=True))
    except (imports.BadFile, RunExists) as error:
        raise _refused(str(error)) from None


def _import(engine: sa.Engine, file: Path, run_id: str | None, project: str | None) -> str:
    _check_schema(engine)
    now = time.time()
    with writing(engine) as session:
        run, count = imports.take(session, path=file, now=now, run_id=run_id, project=project)
        details = {"file": file.name, "steps": count}
        access.record(session, who="python -m db import", action="import", run=run.id, details=details, now=now)
        return f"imported {run.id} ({run.project}, {run.state}): {count:,} steps"


def _check_schema(engine: sa.Engine) -> None:
    current, newest = migrate.revisions(engine)
    if current != newest:
        raise _refused(f"the database is at revision {current or 'none'}, not {newest}; run: python -m db upgrade")


def _refused(sentence: str) -> typer.Exit:
    typer.echo(f"db: {sentence}", err=True)
    return typer.Exit(2)


@app.command("backup")
def back_up(
    output: Annotated[Path, typer.Option("--output", "-o", help="the new file")],
    url: Url = DEFAULT_URL,
) -> None:
    """Copy a SQLite store while collectors write to it."""
    try:
        size = backup.backup(url, output)
    except backup.CannotBackUp as error:
        raise _refused(str(error)) from None
    typer.echo(f"{output}: {size:,} bytes; to restore it, stop the collectors and put it in the place of the store")


if __name__ == "__main__":
    app()
