"""The collector's commands.

python -m monitor serve --host 127.0.0.1 --port 8000     take reports, detect, order
python -m monitor backtest CURVE.csv... [--json]         what would have been detected and done on a curve
python -m monitor backtest --run RUN                     the same on a stored run
python -m monitor token create|list|revoke               who may report, read and operate
python -m monitor settings                               what can be set in the environment
"""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from rich.console import Console
from sqlalchemy.orm import Session

from db import access, migrate, queries
from db.engine import check_store, create_engine, reading
from db.steps import reader
from lossguard.json_values import plain_json
from monitor.app import create_app
from monitor.cli import parameters, tokens
from monitor.cli.backtest import CurveError, backtest_file, backtest_rows, table
from monitor.cli.comparison import comparison
from monitor.cli.errors import one_sentence, stop
from monitor.detection import DetectionSettings, Policy
from monitor.ingestion import detection_state
from monitor.ingestion.columns import WATCHED, rows
from monitor.settings import Settings, check_bind
from monitor.settings import table as table_of_settings
from monitor.telemetry import logs

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
GRACE = 25
"""Seconds that requests in flight have to be answered in, once the collector was told to end."""
app.add_typer(tokens.app, name="token")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on; loopback only without a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
) -> None:
    """Take reports, detect spikes and order rollbacks. The database is LOSSGUARD_DATABASE_URL."""
    with one_sentence():
        settings = Settings()
        logs.configure(settings.log_format, settings.log_level)
        engine = create_engine(settings.database_url)
        migrate.upgrade(engine)
        with reading(engine) as session:
            check_bind(host, settings, tokens=access.any_token(session))
        listener = _listen(host, port)
    config = uvicorn.Config(
        create_app(settings, engine=engine),
        log_config=None,
        access_log=False,  # we write a better one
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=GRACE,
    )
    typer.echo(f"collector on http://{host}:{port} (API at /docs), database {engine.url.render_as_string()}")
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything else is started, so that a port in use is told in one sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only then: without it an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise stop(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    return listener


@app.command("settings")
def print_settings() -> None:
    """What can be set in the environment, as a Markdown table."""
    typer.echo(table_of_settings())


@app.command()
def backtest(
    curves: Annotated[
        list[Path] | None, typer.Argument(help="CSV: step, loss and optionally grad_norm, log_z, lr, tokens")
    ] = None,
    runs: Annotated[list[str] | None, typer.Option("--run", help="a stored run (its live line); repeatable")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=f"{', '.join(parameters.NAMES)}; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line instead of a table")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="the published rules beside ours, on the files")] = False,
) -> None:
    """What the detection would have found on curves, and what the policy would have done."""
    if not curves and not runs:
        raise stop("name a CSV file, or a stored run with --run")
    if compare and (as_json or not curves):
        raise stop("--compare prints a table about CSV files: name some, and leave --json out")
    try:
        detection, policy = parameters.read(settings or [])
        results = [backtest_file(curve, detection, policy) for curve in curves or []]
        results += [_backtest_run(run, detection, policy) for run in runs or []]
        compared = comparison(curves or [], detection) if compare else None
    except (CurveError, parameters.BadParameter) as error:
        raise stop(error) from None
    if as_json:
        for result in results:
            typer.echo(json.dumps(plain_json(result), allow_nan=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file has no width: do not fold for one
    console.print(table(results))
    if compared is not None:
        console.print(compared)


def _backtest_run(run_id: str, detection: DetectionSettings, policy: Policy) -> dict[str, Any]:
    """The live line of a stored run as if it were a curve."""
    with _store() as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise stop(f"the store has no run {run_id!r}; the dashboard lists them")
        line = reader.columns(session, run=run, line=queries.live(session, run=run), metrics=WATCHED)
        if not len(line.steps):
            raise stop(f"run {run_id!r} has no steps yet")
        declared = detection_state.declared(session, run, 0, int(line.steps[-1]) + 1)
    lived = rows(line.steps, line.times, line.metrics)
    return {"file": run_id} | backtest_rows(lived, detection, policy, declared=declared)


@contextmanager
def _store() -> Iterator[Session]:
    """A session on the store that the environment names."""
    with one_sentence():
        url = Settings().database_url
        check_store(url)
        engine = create_engine(url)
        with reading(engine) as session:
            yield session
        engine.dispose()


if __name__ == "__main__":
    app()
