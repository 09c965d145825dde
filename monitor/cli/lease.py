"""python -m monitor lease: show who writes a run, and take it from that process.

python -m monitor lease show my-run
python -m monitor lease end my-run
"""

import time
from typing import Annotated

import typer

from db.cli.command_engine import as_typed_here
from monitor.actions import decisions
from monitor.cli.store import author, open_store
from monitor.ingestion import runs
from monitor.ingestion.lease import seconds_left

app = typer.Typer(help=as_typed_here(__doc__), no_args_is_help=True, add_completion=False)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="id of the run")]


@app.command()
def show(run: RunId) -> None:
    """Print the process that holds the lease of a run, and how long the lease is valid."""
    with open_store() as session:
        found = runs.named(session, run)
        left = seconds_left(found, time.time())
        typer.echo(f"{found.lease_process}, {left:.0f} s left" if left else "nobody holds the lease")


@app.command()
def end(run: RunId) -> None:
    """Take the run from the process that holds its lease: the next process that reports gets the orders."""
    with open_store(write=True) as session:
        process = decisions.end_lease(session, run, who=author(), now=time.time()).lease_process
    typer.echo(f"{process or 'no process'} has lost the run {run}; the next process that reports gets its orders")
