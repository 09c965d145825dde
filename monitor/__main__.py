"""The collector's commands.

python -m monitor serve --host 127.0.0.1 --port 8000     take reports, detect, order
python -m monitor token create|list|revoke               who may report, read and operate
python -m monitor settings                               what can be set in the environment
python -m monitor backtest CURVE.csv... [--json]         what would have been detected and done on a stored curve
"""

import json
import socket
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console

from db import access, migrate
from db.engine import BadDatabaseUrl, create_engine, reading
from monitor import tokens
from monitor.app import create_app
from monitor.backtest import CurveError, backtest_file, table
from monitor.settings import Settings, UnsafeBind, check_bind
from monitor.settings import table as table_of_settings
from monitor.watching import encode

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(tokens.app, name="token")


def stop(reason: object) -> typer.Exit:
    """One sentence on standard error, exit code 2."""
    typer.echo(f"monitor: {reason}", err=True)
    return typer.Exit(2)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on; loopback only without a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
) -> None:
    """Take reports, detect spikes and order rollbacks. The database is LOSSGUARD_DATABASE_URL."""
    try:
        settings = Settings()
        engine = create_engine(settings.database_url)
        migrate.upgrade(engine)
        with reading(engine) as session:
            check_bind(host, settings, tokens=access.any_token(session))
        listener = _listen(host, port)
    except ValidationError as error:
        first = error.errors()[0]
        raise stop(f"LOSSGUARD_{str(first['loc'][0]).upper()}={first['input']!r}: {first['msg']}") from None
    except (UnsafeBind, BadDatabaseUrl) as error:
        raise stop(error) from None
    except sa.exc.OperationalError as error:
        raise stop(f"cannot use the database {settings.database_url}: {error.orig}") from None
    config = uvicorn.Config(create_app(settings, engine=engine), log_level="warning", timeout_graceful_shutdown=10)
    typer.echo(f"collector on http://{host}:{port} (API at /docs), database {engine.url.render_as_string()}")
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything else is started, so that a port in use is told in one sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; else every answer waits 40 ms for a delayed ACK.
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
    curves: Annotated[list[Path], typer.Argument(help="CSV: step, loss and optionally grad_norm, log_z, lr, tokens")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line instead of a table")] = False,
) -> None:
    """What the detection would have found on stored curves, and what the policy would have done."""
    try:
        results = [backtest_file(curve) for curve in curves]
    except CurveError as error:
        raise stop(error) from None
    if as_json:
        for result in results:
            typer.echo(json.dumps(encode(result), allow_nan=False))
    else:
        Console().print(table(results))


if __name__ == "__main__":
    app()
