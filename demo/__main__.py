"""The demo, and its services alone.

python -m demo                 train on real text with one injected fault, which is detected, rolled back and verified
python -m demo serve           start only the collector and the dashboard, until Ctrl-C

Without a terminal the demo exits at its end, with code 0 only if the fault was detected, rolled back and verified.
"""

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from demo.processes import CannotRun, Processes, check_port, only_one
from demo.report import Report, read_report
from lossguard import Client

FOLDER = Path(os.environ.get("LOSSGUARD_DIR", ".lossguard")).absolute()
STEPS = 600
FAULT = "corrupted_batches@320"
COMMAND = ".venv/bin/python -m demo"
"""The command with options, for messages: `make demo` takes none."""
CollectorPort = Annotated[int, typer.Option(min=1, max=65535, help="port of the collector")]
DashboardPort = Annotated[int, typer.Option(min=1, max=65535, help="port of the dashboard")]

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)


@app.callback(invoke_without_command=True)
def demo(context: typer.Context, collector_port: CollectorPort = 8000, dashboard_port: DashboardPort = 8501) -> None:
    """Train with an injected fault, and watch the run recover."""
    if context.invoked_subcommand is not None:
        return
    folder = FOLDER / "demo"
    run_id = time.strftime("demo-%Y%m%d-%H%M%S")
    database = f"sqlite:///{folder}/lossguard.db"
    with services(folder, database, collector_port, dashboard_port) as running:
        console.print(f"[bold]dashboard[/]  {running.dashboard}/run?run={run_id}")
        console.print(
            f"training {STEPS} steps on the Python standard library's source, with one injected fault: {FAULT}\n"
        )
        train(running.processes, folder, running.collector, run_id)
        with Client(running.collector, os.environ.get("LOSSGUARD_TOKEN")) as client:
            report = read_report(client, run_id)
        show(report)
        again = shlex.quote(f"LOSSGUARD_DATABASE_URL={database}")
        console.print(f"\nto see it again: env {again} make serve", markup=False, soft_wrap=True)
        if sys.stdout.isatty():
            console.print(f"the dashboard stays at {running.dashboard} until Ctrl-C")
            stay(running)
    raise typer.Exit(0 if report.verified else 1)


@app.command()
def serve(collector_port: CollectorPort = 8000, dashboard_port: DashboardPort = 8501) -> None:
    """Start the collector and the dashboard, until Ctrl-C."""
    database = os.environ.get("LOSSGUARD_DATABASE_URL", f"sqlite:///{FOLDER}/lossguard.db")
    with services(FOLDER / "serve", database, collector_port, dashboard_port, f"{COMMAND} serve") as running:
        console.print(f"[bold]collector[/]  {running.collector} (API at /docs; point LOSSGUARD_URL at it)")
        console.print(f"[bold]dashboard[/]  {running.dashboard}\nCtrl-C stops both")
        stay(running)


class Services:
    """A collector and a dashboard that are up."""

    def __init__(self, processes: Processes, collector_port: int, dashboard_port: int) -> None:
        self.processes = processes
        self.collector = f"http://127.0.0.1:{collector_port}"
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"


def stay(running: Services) -> NoReturn:
    """Wait until Ctrl-C; if a service ends earlier, report it and exit with 1."""
    name = running.processes.wait_for_an_end(("collector", "dashboard"))
    typer.echo(f"demo: the {name} has ended; its log is {running.processes.log_of(name)}", err=True)
    raise typer.Exit(1)


@contextmanager
def services(
    folder: Path, database: str, collector_port: int, dashboard_port: int, command: str = COMMAND
) -> Iterator[Services]:
    """Run a collector and a dashboard on these ports inside the block. Reports errors in a sentence, and exits."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        lock = only_one(folder / "lock")
        check_port(collector_port, "collector", f"{command} --collector-port PORT")
        check_port(dashboard_port, "dashboard", f"{command} --dashboard-port PORT")
        with lock, Processes(folder / "logs") as processes:
            running = Services(processes, collector_port, dashboard_port)
            environment = {"LOSSGUARD_DATABASE_URL": database}
            processes.start(
                "collector", "-m", "monitor", "serve", "--port", str(collector_port), environment=environment
            )
            processes.wait_until_up("collector", f"{running.collector}/healthz")
            processes.start("dashboard", "-m", "dashboard", "--port", str(dashboard_port), environment=environment)
            processes.wait_until_up("dashboard", f"{running.dashboard}/_stcore/health")
            yield running
    except CannotRun as reason:
        typer.echo(f"demo: {reason}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("\ndemo: stopped; all its processes have ended", err=True)
        raise typer.Exit(130) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def train(processes: Processes, folder: Path, collector: str, run_id: str, *settings: str) -> None:
    """Train to the end and show the progress; `settings` override the recipe (`lr=..`). Raises CannotRun on failure."""
    out = folder / "runs"
    shutil.rmtree(out, ignore_errors=True)  # of an interrupted demo
    arguments = ["--recipe", "tiny", "--steps", str(STEPS), "--fault", FAULT, "--run-id", run_id, "--out", str(out)]
    arguments += [f"--set={setting}" for setting in settings]
    # Leave one core to the collector and the dashboard: threads that wait for a core slow the training down.
    environment = {"LOSSGUARD_URL": collector, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))}
    trainer = processes.start("trainer", "-m", "trainer", "run", *arguments, environment=environment, show=True)
    code = trainer.wait()
    shutil.rmtree(out, ignore_errors=True)
    if code != 0:
        raise CannotRun(f"the trainer ended with exit code {code}")


def show(report: Report) -> None:
    """Print the report as a table."""
    table = Table(title=f"run {report.run_id}", show_header=False, title_justify="left")
    for label, text in report.lines():
        table.add_row(label, text)
    console.print()
    console.print(table)


if __name__ == "__main__":
    app()
