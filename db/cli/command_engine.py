"""The store of a command, and our commands as they are typed where this runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Annotated

import sqlalchemy as sa
import typer
from alembic.util.exc import CommandError

from db import migrate
from db.steps.archived.reading import UnreadableArchive
from db.steps.codec import DamagedBlock
from db.store.engine import BadDatabaseUrl, NoStore, check_store, create_engine, first_line, shown

# Commands as they are typed, for messages that name one as the remedy.
#
# A checkout and the image have `python -m db upgrade`; where the distribution `lossguard-server` is installed,
# `lossguard-server db upgrade`.

SERVER = "lossguard-server"
INSTALLED = (
    ("python -m dashboard report", f"{SERVER} report"),
    ("python -m dashboard", f"{SERVER} dashboard"),
    ("python -m db", f"{SERVER} db"),
    ("python -m monitor", SERVER),
    ("python -m trainer replay", f"{SERVER} replay"),
    ("python -m trainer", f"{SERVER} trainer"),
)
"""Command lines in a checkout, then those of the distribution: the first one that fits."""


@cache
def server_is_installed() -> bool:
    """True if this environment has the distribution `lossguard-server`."""
    try:
        metadata.distribution(SERVER)
    except metadata.PackageNotFoundError:
        return False
    return True


def as_typed_here(text: str) -> str:
    """A text that names commands as in a checkout, with the commands as they are typed in this environment."""
    for command, installed in INSTALLED if server_is_installed() else ():
        text = text.replace(command, installed)
    return text


# The store: a command that cannot use it ends with one sentence and exit code 2.

Url = Annotated[str, typer.Option(envvar="LOSSGUARD_DATABASE_URL", help="sqlite:/// or postgresql:// URL")]
_CAUSES = {
    "disk I/O error": ": is the disk full, or read-only?",
    "unable to open database file": ": may this user write to it, and into its folder?",
}
"""Causes that SQLite does not name: it answers so when it cannot write its other files, even for a read."""


@contextmanager
def exits(url: str) -> Iterator[None]:
    """Exit with one sentence where the database at `url` cannot be used."""
    try:
        yield
    except NoStore as missing:
        named = "name the store with --url or LOSSGUARD_DATABASE_URL"
        raise error(f"{missing}; {named}; to create it, run: python -m db upgrade") from None
    except (DamagedBlock, UnreadableArchive) as damaged:
        raise error(str(damaged)) from None
    except (BadDatabaseUrl, sa.exc.DBAPIError, CommandError) as failed:
        reason = first_line(failed.orig if isinstance(failed, sa.exc.DBAPIError) else failed)
        raise error(f"cannot use the database {shown(url)}: {reason}{_CAUSES.get(reason, '')}") from None


@contextmanager
def opened(url: str, *, schema: bool = True, new: bool = False) -> Iterator[sa.Engine]:
    """The engine of a command, which exits with one sentence where the database cannot be used, or (`schema`) not by
    this release. `new`: it may not exist yet."""
    with exits(url):
        if not new:
            check_store(url)
        engine = create_engine(url)
        try:
            if schema and (reason := migrate.misfit(engine)):
                raise error(reason)
            yield engine
        finally:
            engine.dispose()


def error(sentence: str) -> typer.Exit:
    """Print one line on standard error; raise what is returned, to exit with code 2."""
    typer.echo(as_typed_here(f"db: {sentence}"), err=True)
    return typer.Exit(2)
