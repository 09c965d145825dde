"""A copy of a SQLite store, made while collectors write to it (PostgreSQL has pg_dump)."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from db.engine import BadDatabaseUrl, parse_url


class CannotBackUp(ValueError):
    """One sentence: why, and what to do about it."""


def backup(url: str, target: Path) -> int:
    """Write the SQLite store at `url` to the new file `target`, as one moment's state: its size in bytes.

    The copy is one read transaction, so that it keeps no writer waiting; it appears under its name when it is whole.
    Raises CannotBackUp.
    """
    source = _file_of(url, target)
    if target.exists():
        raise CannotBackUp(f"{target} exists; name another file, or move it away")
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        _copy(source, partial)
        os.replace(partial, target)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise CannotBackUp(f"cannot write {source} to {target}: {error}") from None
    return target.stat().st_size


def _file_of(url: str, target: Path) -> Path:
    try:
        parsed = parse_url(url)
    except BadDatabaseUrl as error:
        raise CannotBackUp(str(error)) from None
    if parsed.get_backend_name() == "postgresql":
        shown = parsed.set(drivername="postgresql", password=None).render_as_string()
        raise CannotBackUp(f"this is PostgreSQL; use its own: pg_dump --format=custom --file={target} {shown!r}")
    if not parsed.database or not Path(parsed.database).is_file():
        raise CannotBackUp(f"there is no store at {parsed.database or url}; LOSSGUARD_DATABASE_URL or --url names it")
    return Path(parsed.database)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as store, closing(sqlite3.connect(target)) as copy:
        store.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        (said,) = copy.execute("PRAGMA quick_check").fetchone()
    if said != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged: {said}")
    with target.open("rb") as file:
        os.fsync(file.fileno())
