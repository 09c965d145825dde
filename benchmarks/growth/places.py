"""Where the stores of this benchmark are made: files in a folder for SQLite, a temporary server for PostgreSQL."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from db import migrate
from db.store.engine import create_engine
from tests import postgres

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
NAMES = (SQLITE, *((POSTGRESQL,) if postgres.PROGRAMS else ()))
"""Of the databases that this machine has."""
TEMPLATE = "growth_template"


@dataclass(frozen=True, slots=True)
class Place:
    """Makes empty stores, which are copies of one that was migrated once."""

    name: str
    folder: Path
    server: postgres.Server | None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @contextmanager
    def new_store(self) -> Iterator[str]:
        """The URL of an empty store, which is deleted after the block."""
        name = f"growth_{next(self._numbers)}"
        if self.server is not None:
            yield self.server.create_database(name, template=TEMPLATE)
            self.server.drop_database(name)
            return
        file = self.folder / f"{name}.db"
        shutil.copy(self.folder / f"{TEMPLATE}.db", file)
        yield f"sqlite:///{file}"
        for part in self.folder.glob(f"{name}.db*"):
            part.unlink()


@contextmanager
def place(name: str) -> Iterator[Place]:
    """A place for stores of this database, `name` being one of NAMES."""
    with tempfile.TemporaryDirectory(prefix="lossguard-growth-") as folder:
        if name == SQLITE:
            _migrate(f"sqlite:///{folder}/{TEMPLATE}.db")
            yield Place(name, Path(folder), None)
            return
        with postgres.running() as server:
            _migrate(server.create_database(TEMPLATE))
            yield Place(name, Path(folder), server)


def _migrate(url: str) -> None:
    engine = create_engine(url)
    migrate.upgrade(engine)
    if engine.dialect.name == "sqlite":  # the template is copied without its log
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
