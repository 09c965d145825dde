"""The demo, and its services alone.

python -m demo                 train on real text with one injected fault, which is detected, rolled back and verified
python -m demo serve           start only the collector and the dashboard, until Ctrl-C

Without a terminal the demo exits at its end, with code 0 only if the fault was detected, rolled back and verified. A
signal ends it with 128 and its number: 130 for Ctrl-C, 143 for SIGTERM.
"""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from demo.report import Report, read_report
from lossguard import Client
from lossguard_server.processes import CannotRun, Processes
from lossguard_server.services import Ports, one_sentence, services, stay, store_in
from lossguard_server.services import serve as serve_both

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
    database = store_in(folder)
    ports = Ports(collector=collector_port, dashboard=dashboard_port)
    with one_sentence("demo"), services(folder, database, ports, command=COMMAND) as running:
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
            stay("demo", running)
    raise typer.Exit(0 if report.verified else 1)


@app.command()
def serve(collector_port: CollectorPort = 8000, dashboard_port: DashboardPort = 8501) -> None:
    """Start the collector and the dashboard, until Ctrl-C: the same as `make serve`, with a choice of ports."""
    database = os.environ.get("LOSSGUARD_DATABASE_URL", store_in(FOLDER))
    ports = Ports(collector=collector_port, dashboard=dashboard_port)
    serve_both(FOLDER, database, ports, program="demo", command=f"{COMMAND} serve")


def train(
    processes: Processes,
    folder: Path,
    collector: str,
    run_id: str,
    *settings: str,
    faults: Sequence[str] = (FAULT,),
) -> None:
    """Train to the end and show the progress; `settings` override the recipe (`lr=..`). Raises CannotRun on failure."""
    out = folder / "runs"
    shutil.rmtree(out, ignore_errors=True)  # of an interrupted demo
    arguments = ["--recipe", "tiny", "--steps", str(STEPS), "--run-id", run_id, "--out", str(out)]
    arguments += [f"--fault={fault}" for fault in faults]
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
