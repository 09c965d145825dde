"""The collector and the dashboard as child processes of one command, on this machine alone."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lossguard_server.processes import CannotRun, Processes, check_port, only_one


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the two listen on 127.0.0.1."""

    collector: int = 8000
    dashboard: int = 8501


class Services:
    """A collector and a dashboard that are up."""

    def __init__(self, processes: Processes, ports: Ports) -> None:
        self.processes = processes
        self.collector = f"http://127.0.0.1:{ports.collector}"
        self.dashboard = f"http://127.0.0.1:{ports.dashboard}"


def default_folder() -> Path:
    """Where `lossguard-server` keeps its store: LOSSGUARD_DIR, else the user's folder for data."""
    chosen = os.environ.get("LOSSGUARD_DIR")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(chosen).absolute() if chosen else Path(data) / "lossguard"


def store_in(folder: Path) -> str:
    """The URL of the SQLite store in a folder."""
    return f"sqlite:///{folder}/lossguard.db"


@contextmanager
def services(folder: Path, database: str, ports: Ports, *, command: str) -> Iterator[Services]:
    """Run a collector and a dashboard inside the block, with their logs in `folder`. Raises CannotRun.

    `command` is the command that has the options `--collector-port` and `--dashboard-port`, for the messages.
    """
    with only_one(folder / "lock"):
        check_port(ports.collector, "collector", f"{command} --collector-port PORT")
        check_port(ports.dashboard, "dashboard", f"{command} --dashboard-port PORT")
        with Processes(folder / "logs") as processes:
            running = Services(processes, ports)
            # The dashboard sends operators' decisions to the collector beside it.
            environment = {"LOSSGUARD_DATABASE_URL": database, "LOSSGUARD_URL": running.collector}
            start = ("-P", "-m", "lossguard_server")  # -P: the folder that we are started in may hold a `db` of its own
            processes.start(
                "collector", *start, "collector", "serve", "--port", str(ports.collector), environment=environment
            )
            processes.wait_until_up("collector", f"{running.collector}/healthz")
            processes.start("dashboard", *start, "dashboard", "--port", str(ports.dashboard), environment=environment)
            processes.wait_until_up("dashboard", f"{running.dashboard}/_stcore/health")
            yield running


def serve(folder: Path, database: str, ports: Ports, *, program: str, command: str) -> NoReturn:
    """Run a collector and a dashboard until a signal (exit code 0), or until one of them ends (exit code 1)."""
    with one_sentence(program, interrupted=0), services(folder / "serve", database, ports, command=command) as running:
        print(f"collector  {running.collector} (API at /docs; point LOSSGUARD_URL at it)")
        print(f"dashboard  {running.dashboard}\nCtrl-C stops both", flush=True)
        stay(program, running)


def stay(program: str, running: Services) -> NoReturn:
    """Wait until a signal; if a service ends earlier, report it and exit with 1."""
    name = running.processes.wait_for_an_end(("collector", "dashboard"))
    print(f"{program}: the {name} has ended; its log is {running.processes.log_of(name)}", file=sys.stderr)
    raise SystemExit(1)


@contextmanager
def one_sentence(program: str, *, interrupted: int | None = None) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the block, and the program with exit code `interrupted`; CannotRun with 2.

    By default the code is 128 and the number of the signal, as in shells.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        yield
    except CannotRun as reason:
        print(f"{program}: {reason}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        print(f"\n{program}: stopped; all its processes have ended", file=sys.stderr)
        number = stop.args[0] if stop.args else signal.SIGINT
        raise SystemExit(128 + number if interrupted is None else interrupted) from None


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
