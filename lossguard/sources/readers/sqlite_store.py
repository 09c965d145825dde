"""SQLite files of other tools, read only: what writes them is never disturbed, and nothing is created."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from lossguard.sources.readers.line_format import files_in
from lossguard.sources.source_run import BadSource

SUFFIXES = (".db", ".sqlite", ".sqlite3")
MAGIC = b"SQLite format 3\0"


def stores_in(path: Path, tables: Mapping[str, Collection[str]]) -> Iterator[Path]:
    """The SQLite files at or below `path` that have these tables with these columns."""
    for file in files_in(path, SUFFIXES):
        if _has_magic(file) and _has_tables(file, tables):
            yield file


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Raises BadSource where the file cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise BadSource(
            f"{path} cannot be read as a SQLite file ({error}): copy it again while nothing writes it"
        ) from None


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _has_tables(path: Path, tables: Mapping[str, Collection[str]]) -> bool:
    with opened(path) as connection:
        return all(
            set(columns) <= {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
            for table, columns in tables.items()
        )
