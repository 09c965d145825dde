"""Commands for the store.

python -m db upgrade                         create the database, or upgrade it to the newest schema
python -m db downgrade REVISION              undo the migrations after REVISION
python -m db check [--verify]                check that the database fits the code (exit 1 when it does not)
python -m db pack                            store the last steps of ended runs in blocks
python -m db prune --days 90 [--dry-run]     delete runs that ended at least this long ago
python -m db retention set PROJECT 30        let prune keep the runs of a project so long, whatever its --days say
python -m db export RUN -o FILE              write a run to FILE.parquet (the whole run) or FILE.csv (its steps)
python -m db import FILE [--as NEW_ID]       read a run from such a file; an existing run is never overwritten
python -m db archive --older-than 30d --to URL   move the steps of ended runs to Parquet files in a folder or bucket
python -m db unarchive RUN... | --all        bring them back
python -m db backup -o FILE                  copy a SQLite store while collectors write to it

The database is --url or LOSSGUARD_DATABASE_URL; by default sqlite:///.lossguard/lossguard.db.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Session

from db import migrate, upkeep
from db.cli import archive as archive_cli
from db.cli.command_engine import Url, as_typed_here, error, exits, opened
from db.dialects.base import CannotBackUp
from db.files import imports
from db.files.export import Format, RunDeleted, UnknownRun, stream
from db.files.record import RunExists
from db.records import access
from db.store import partitions
from db.store.engine import DEFAULT_URL, check_store, parse_url, pre_release, reading, writing
from lossguard.vocabulary.protocol import MAX_METRICS, is_name
from lossguard.vocabulary.wording import plural

app = typer.Typer(
    help=as_typed_here(__doc__), no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.command()(archive_cli.archive)
app.command()(archive_cli.unarchive)


@app.command()
def upgrade(url: Url = DEFAULT_URL) -> None:
    """Create the database, or upgrade it to the newest schema."""
    with opened(url, schema=False, new=True) as engine:
        migrate.upgrade(engine)
        current, newest = migrate.revisions(engine)
    newer = f"the database stays at revision {current}, which is newer than this release ({newest}) and fits it"
    typer.echo("the database is at the newest revision" if current == newest else newer)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="the revision to go back to, such as 0007")], url: Url = DEFAULT_URL
) -> None:
    """Undo migrations. Data that the older schema cannot hold is lost: make a backup first."""
    with opened(url, schema=False) as engine:
        migrate.downgrade(engine, revision)
    typer.echo(f"the database is at revision {revision}")


@app.command()
def check(
    url: Url = DEFAULT_URL,
    verify: Annotated[bool, typer.Option("--verify", help="read every file of archived steps, too")] = False,
) -> None:
    """Check that the database fits the code, and say what is archived."""
    with opened(url, schema=False) as engine:
        with engine.connect() as connection:
            reason = pre_release(connection)
        if reason is not None:
            typer.echo(reason, err=True)
            raise typer.Exit(1)
        missing = partitions.missing(engine)
        for partition, keys in missing:
            held = f"which held values of the runs with the keys {keys.start} to {keys.stop - 1}"
            remedy = "attach it again, or restore the store from a backup"
            typer.echo(f"db: the partition {partition} is missing, {held}: {remedy}", err=True)
        if missing:
            raise typer.Exit(1)
        if difference := migrate.drift(engine):
            typer.echo(as_typed_here(difference), err=True)
            raise typer.Exit(1)
        typer.echo("the database fits the code")
        if not archive_cli.check(engine, verify=verify):
            raise typer.Exit(1)


@app.command()
def pack(url: Url = DEFAULT_URL) -> None:
    """Store the steps of ended runs that are still rows in blocks, which weigh a fifth. Collectors do so by themselves.

    They go on meanwhile. It may be stopped at any moment, and continues where it stopped.
    """
    with opened(url) as engine:
        for line in upkeep.pack_store(engine, now=time.time()):
            typer.echo(line)


@app.command()
def prune(
    days: Annotated[
        float | None,
        typer.Option(min=0, help="runs that ended, and last reported, this many days ago; default: only `retention`"),
    ] = None,
    url: Url = DEFAULT_URL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs, and delete nothing")] = False,
) -> None:
    """Delete runs that ended long ago, with everything that belongs to them. Running runs are never deleted.

    A project with a retention of its own keeps its runs that long.
    """
    now = time.time()
    with opened(url) as engine:
        before, num_runs = upkeep.num_bytes(engine), 0
        runs = upkeep.old_runs(engine, days=days, now=now) if dry_run else upkeep.prune(engine, days=days, now=now)
        for run in runs:
            num_runs += 1
            typer.echo(f"{'would delete' if dry_run else 'deleted'} {run.id} ({run.project}, {run.state})")
        if not num_runs:
            typer.echo("nothing is that old")
        elif not dry_run:
            typer.echo(upkeep.compact(engine, before=before))
        if not dry_run:
            archive_cli.remove_files(engine)


retention_app = typer.Typer(help="How long `prune` keeps the ended runs of a project.", no_args_is_help=True)
app.add_typer(retention_app, name="retention")
Project = Annotated[str, typer.Argument(help="the project")]


@retention_app.command("set")
def set_retention(
    project: Project,
    days: Annotated[str, typer.Argument(metavar="DAYS", help="a number, or: forever")],
    url: Url = DEFAULT_URL,
) -> None:
    """Keep the ended runs of a project for the given days, whatever the --days of `prune` say."""
    kept = _days(days)
    if not is_name(project):
        raise error(f"{project!r} is no project: give a name of 1 to 128 characters without control characters")
    with _changing_retention(url, project, kept) as session:
        upkeep.set_days(session, project=project, days=kept, now=time.time())
    typer.echo(f"ended runs of {project} are kept {_for_days(kept)}")


@retention_app.command("unset")
def unset_retention(project: Project, url: Url = DEFAULT_URL) -> None:
    """Let the --days of `prune` count for a project again."""
    with _changing_retention(url, project, "default") as session:
        had_one = upkeep.unset(session, project=project)
    if not had_one:
        raise error(f"the project {project!r} has no retention of its own; see: python -m db retention list")
    typer.echo(f"the --days of prune count for {project}")


@retention_app.command("list")
def list_retentions(url: Url = DEFAULT_URL) -> None:
    """Print the projects that have a retention of their own."""
    with opened(url) as engine, reading(engine) as session:
        for project, days in upkeep.by_project(session).items():
            typer.echo(f"{project}: {_for_days(days)}")


def _days(text: str) -> float | None:
    if text == "forever":
        return None
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 < days < float("inf"):
        raise error(f"{text!r} is no retention: give a number of days above 0, such as 30, or: forever")
    return days


def _for_days(days: float | None) -> str:
    return "forever" if days is None else f"for {days:g} days"


@contextmanager
def _changing_retention(url: str, project: str, days: object) -> Iterator[Session]:
    with opened(url) as engine, writing(engine) as session:
        who, details = "python -m db retention", {"project": project, "days": days}
        access.record(session, who=who, action="retention", run=None, details=details, now=time.time())
        yield session


@app.command("export")
def export(
    run: Annotated[str, typer.Argument(help="the id of the run")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="RUN.parquet by default")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write a run to a file: .parquet holds the whole run, .csv its steps alone."""
    path = output or Path(f"{run}.parquet")
    formats = {f".{one}": one for one in (Format.PARQUET, Format.CSV)}
    if path.suffix not in formats:
        raise error(f"{path}: the file name must end in {' or '.join(formats)}")
    try:
        with opened(url) as engine:
            _export(engine, run, path, formats[path.suffix])
    except FileExistsError:
        raise error(f"{path} exists; name another file with -o, or delete it") from None
    except FileNotFoundError:
        raise error(f"there is no folder {path.parent}; create it, or name another file with -o") from None
    except OSError as failed:
        raise error(f"cannot write {path}: {failed.strerror or failed}") from None
    except (UnknownRun, RunDeleted) as failed:
        raise error(str(failed)) from None
    typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _export(engine: sa.Engine, run_id: str, path: Path, format: Format) -> None:
    chunks = stream(engine, run_id=run_id, format=format)
    first = next(chunks)  # raises for an unknown run, before there is a file
    with path.open("xb") as file:
        try:
            file.write(first)
            file.writelines(chunks)
        except BaseException:
            path.unlink()
            raise


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="a file that `export` wrote, or a CSV with a column `step`")],
    run_id: Annotated[str | None, typer.Option("--as", help="another id for the run in this store")] = None,
    project: Annotated[str | None, typer.Option(help="the project of a run from a CSV")] = None,
    max_metrics: Annotated[
        int, typer.Option(envvar="LOSSGUARD_MAX_METRICS", min=1, help="metrics that a run may have")
    ] = MAX_METRICS,
    url: Url = DEFAULT_URL,
) -> None:
    """Read a run from a file. An existing run is never overwritten."""
    now = time.time()
    try:
        with opened(url) as engine, imports.limited_memory(file), writing(engine) as session:
            run, count = imports.import_file(
                session, path=file, now=now, run_id=run_id, project=project, max_metrics=max_metrics
            )
            details = {"file": file.name, "steps": count}
            access.record(session, who=imports.WHO, action="import", run=run.id, details=details, now=now)
    except (imports.BadFile, RunExists) as refused:
        raise error(str(refused)) from None
    typer.echo(f"imported {run.id} ({run.project}, {run.state}): {plural(count, 'step')}")


@app.command("backup")
def back_up(
    output: Annotated[Path, typer.Option("--output", "-o", help="the new file")], url: Url = DEFAULT_URL
) -> None:
    """Copy a SQLite store while collectors write to it."""
    try:
        with exits(url):
            dialect, parsed = parse_url(url)
            check_store(url)
            if dialect.is_file and output.exists():
                raise CannotBackUp(f"{output} exists; name another file, or move it away")
            dialect.back_up(parsed, output)
    except CannotBackUp as refused:
        raise error(str(refused)) from None
    restoring = "to restore it, stop the collectors and replace the store by this file"
    typer.echo(f"{output}: {output.stat().st_size:,} bytes; {restoring}")
