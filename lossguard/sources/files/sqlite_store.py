"""SQLite files of other tools, read only: what writes them is never disturbed, and nothing is created.

A file brings its own schema, which is code: views, triggers, virtual tables and columns with an expression. Only tables
that hold what they say are read, with a limit on the size of a value and on the work of all queries.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from lossguard.sources.files.line_format import files_in, has_magic
from lossguard.sources.files.source_files import lies_in
from lossguard.sources.source_run import BadSource

SUFFIXES = (".db", ".sqlite", ".sqlite3")
BESIDE = ("-wal", "-shm", "-journal")
"""Ends of the names of files that SQLite reads beside a file."""
MAGIC = b"SQLite format 3\0"
MAX_VALUE = 4 << 20
"""Maximum bytes of a value."""
MAX_OPERATIONS, OPERATIONS_PER_BYTE = 200_000_000, 20
"""Operations of SQLite's virtual machine that all queries of a file may take, and those for each of its bytes."""
CHECK_EVERY = 1_000
"""Operations between two looks at how many there were."""
_num_operations: Counter[Path] = Counter()
FUNCTIONS = ("count", "max", "min")


def stores_in(path: Path, tables: Mapping[str, Collection[str]]) -> Iterator[Path]:
    """The SQLite files at or below `path` that have these tables with these columns."""
    for file in files_in(path, SUFFIXES):
        if has_magic(file, MAGIC):
            with opened(file) as store:
                found = store.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0").fetchall()
                has_tables = {name for (name,) in found}.issuperset(tables) and all(
                    columns_of(store, table).issuperset(columns) for table, columns in tables.items()
                )
            if has_tables:
                yield file


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads tables. Raises BadSource where the file cannot be read, or takes too long."""
    place = path.resolve()
    for beside in (place.with_name(place.name + end) for end in BESIDE):
        if os.path.lexists(beside) and not (beside.is_file() and lies_in(beside, place.parent)):
            raise BadSource(f"{beside} is no file of SQLite: remove it, or copy {place.name} to another folder")
    limit = MAX_OPERATIONS + OPERATIONS_PER_BYTE * place.stat().st_size

    def is_too_much() -> bool:
        _num_operations[place] += CHECK_EVERY
        return _num_operations[place] > limit

    try:
        with closing(sqlite3.connect(f"file:{quote(str(place))}?mode=ro", uri=True)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_progress_handler(is_too_much, CHECK_EVERY)
            for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
                connection.execute(f"PRAGMA {pragma}")
            connection.set_authorizer(_is_allowed)
            yield connection
    except sqlite3.Error as error:
        problem = f"cannot be read as a SQLite file ({error}): copy it again while nothing writes it"
        if _num_operations[place] > limit:
            problem = "takes too long to read for its size: it is damaged, or made for that"
        raise BadSource(f"{path} {problem}") from None


def _is_allowed(action: int, first: str | None, second: str | None, database: str | None, within: str | None) -> int:
    """Allow queries of tables: `within` names the view or trigger that asks, where one does."""
    is_allowed = within is None and (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
        or (action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS)
        or (action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    )
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def columns_of(store: sqlite3.Connection, table: str) -> set[str]:
    """Return the names of the columns of a table; none of a table with columns that are computed."""
    columns = store.execute(f'PRAGMA table_xinfo("{table}")').fetchall()
    return set() if any(is_hidden for *_, is_hidden in columns) else {name for _, name, *_ in columns}
