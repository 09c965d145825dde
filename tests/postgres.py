"""A temporary PostgreSQL server on a Unix socket, for tests and benchmarks."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from db.store.engine import create_engine

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


class Server:
    """A running server that can be stopped, or crashed, and started again."""

    def __init__(self, folder: str, *, durable: bool) -> None:
        self.folder, self.programs = folder, PROGRAMS[-1].parent
        # PostgreSQL refuses to run as root; Debian's package creates a user for it.
        self.as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.as_postgres:
            shutil.chown(folder, "postgres")
        self.options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c autovacuum=off"
        self.options += "" if durable else " -c fsync=off"
        data = f"{folder}/data"
        _run(
            *self.as_postgres,
            self.programs / "initdb",
            "-D",
            data,
            "-U",
            "lossguard",
            "--auth=trust",
            "--no-sync",
            "-EUTF8",
        )
        self.start()

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://lossguard@/{name}?host={self.folder}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database, a copy of `template`; its URL. Nobody may be connected to the template meanwhile."""
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def process(self) -> int:
        """Process id of the server; its other processes are children of it."""
        return int(Path(f"{self.folder}/data/postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        self._control("start", "-l", f"{self.folder}/log", "-o", self.options)

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` acts like a crash: the next start recovers from the write-ahead log."""
        self._control("stop", "-m", mode)

    def _control(self, verb: str, *more: str) -> None:
        _run(*self.as_postgres, self.programs / "pg_ctl", "-D", f"{self.folder}/data", "-w", "-t", "200", verb, *more)


@contextmanager
def running(*, durable: bool = False) -> Iterator[Server]:
    """A server for the duration of the block; without `durable` it does not fsync, which is faster."""
    with tempfile.TemporaryDirectory(prefix="lossguard-pg-") as folder:
        server = Server(folder, durable=durable)
        try:
            yield server
        finally:
            server.stop()


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
