"""`python -m dashboard report`: its options; an error is one sentence and exit code 2."""

import os
import time
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, NoReturn
from zoneinfo import ZoneInfo

import typer
from sqlalchemy.exc import SQLAlchemyError

from db.cli.command_engine import as_typed_here
from db.store.engine import DEFAULT_URL, BadDatabaseUrl, check_store, create_engine

SUFFIXES = (".html", ".pdf")

Database = Annotated[str, typer.Option(envvar="LOSSGUARD_DATABASE_URL", help="SQLite or PostgreSQL URL of the store.")]


def report(
    run: Annotated[str, typer.Argument(help="The run: its id, project/name, name, or the beginning of its id.")],
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="A file that ends in .html or .pdf; may be repeated. RUN.html by default."),
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of all times, such as Europe/Berlin.")] = "UTC",
    database: Database = DEFAULT_URL,
) -> None:
    """Write a run as one file that opens anywhere: summary, curves, every incident, lost compute, configuration.

    A PDF is printed by the system's Chromium. An existing file is replaced when the new one is complete.
    """
    try:
        zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        refuse(f"there is no time zone {timezone!r}; write it like Europe/Berlin or UTC")
    for path in output or []:
        _check(path)
    page, run_id = _page(run, database, zone)
    for path in output or [Path(f"{run_id}.html")]:
        _write(page, path)


def _check(path: Path) -> None:
    """Refuse what can be refused before the run is read."""
    from dashboard.report.output import CannotPrint, CannotWrite, check_writable, find_browser

    if path.suffix not in SUFFIXES:
        refuse(f"{path}: the name of the file must end in {' or '.join(SUFFIXES)}")
    try:
        check_writable(path)
        if path.suffix == ".pdf":
            find_browser()
    except (CannotWrite, CannotPrint) as reason:
        refuse(str(reason))


def _page(run: str, database: str, zone: tzinfo) -> tuple[str, str]:
    """The report as HTML, and the id of its run."""
    try:
        check_store(database)
        create_engine(database).dispose()
    except (BadDatabaseUrl, SQLAlchemyError) as error:
        refuse(f"LOSSGUARD_DATABASE_URL / --database: {error}")
    os.environ["LOSSGUARD_DATABASE_URL"] = (
        database  # the modules that read the store take it from there, as on the pages
    )
    from streamlit import logger  # late: Streamlit takes a second to import, an error should not

    logger.set_log_level("ERROR")  # it would warn that no page is served, which is meant
    from dashboard.data import run_list
    from dashboard.data.store import StoreUnavailable
    from dashboard.report import contents, document

    try:
        chosen = contents.find_run(run_list.called(run), run).id
        read = contents.read_contents(chosen, now=time.time(), zone=zone)
        return document.render(read, contents.read_incidents(read.facts, read.limits)), chosen
    except (contents.NoSuchRun, StoreUnavailable) as reason:
        refuse(str(reason).rstrip("."))


def _write(page: str, path: Path) -> None:
    from dashboard.report.output import CannotPrint, CannotWrite, print_pdf, write_atomically

    def make(part: Path) -> None:
        if path.suffix == ".pdf":
            print_pdf(page, part)
        else:
            part.write_text(page, encoding="utf-8")

    try:
        write_atomically(path, make)
    except (CannotWrite, CannotPrint) as reason:
        refuse(str(reason))
    typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")


def refuse(sentence: str) -> NoReturn:
    typer.echo(as_typed_here(f"python -m dashboard report: {sentence}"), err=True)
    raise typer.Exit(2)
