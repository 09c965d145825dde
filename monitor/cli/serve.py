"""python -m monitor serve: run the collector."""

import ctypes
import gc
import os
import platform
import socket
from typing import Annotated

import typer
import uvicorn

from db import migrate
from db.records import access
from db.store.engine import create_engine, reading
from lossguard.vocabulary.errors import ConfigurationError
from monitor.api import connections
from monitor.app import create_app
from monitor.cli.store import exit_with, one_line_errors
from monitor.settings import Settings, check_bind, misspelt
from monitor.telemetry import logs

SHUTDOWN_SECONDS = 25
"""Time for requests in progress to complete after the signal to stop."""

MAX_IDLE_SECONDS = 5.0
"""Maximum seconds for which a collector that hangs in a transaction blocks the others. A step of a transaction takes
milliseconds; the longest, detection in a report of 10,000 steps, some tenths of a second."""


def serve(
    host: Annotated[str, typer.Option(help="address to listen on; without a token only loopback")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
) -> None:
    """Take reports, detect incidents and order rollbacks. LOSSGUARD_DATABASE_URL names the database."""
    few_arenas()
    collect_garbage_rarely()
    with one_line_errors():
        settings = Settings()
        for variable, setting in misspelt(os.environ).items():
            typer.echo(f"{variable} is no setting of the collector; do you mean {setting}?", err=True)
        if settings.token is None and (file := os.environ.get("LOSSGUARD_TOKEN_FILE")):
            raise ConfigurationError(f"LOSSGUARD_TOKEN_FILE={file} is read in containers only; set LOSSGUARD_TOKEN")
        logs.configure(settings.log_format, settings.log_level)
        engine = create_engine(settings.database_url, max_idle_seconds=MAX_IDLE_SECONDS)
        migrate.upgrade(engine)
        with reading(engine) as session:
            check_bind(host, settings, has_tokens=access.any_token(session))
        app = create_app(settings, engine=engine)
        listener = listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # `Requests` writes a better one
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        **connections.server_options(settings),
    )
    # Freeze what is loaded by now: then collections during a scrape of 2,000 runs take 30% less time.
    gc.collect()
    gc.freeze()
    typer.echo(f"collector on http://{host}:{port} (API at /docs), database {engine.url.render_as_string()}")
    uvicorn.Server(config).run(sockets=[listener])


M_ARENA_MAX = -8
"""Parameter of glibc's mallopt: the number of its memory pools."""


def few_arenas() -> bool:
    """Let all threads share two memory pools, if the C library is glibc: whether it did.

    By default each of the forty threads may have its own, which keeps the memory of the largest body that it parsed.
    """
    return platform.libc_ver()[0] == "glibc" and ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2) == 1


YOUNG_OBJECTS = 10_000
"""New objects after which the garbage collector looks at them; by default 700."""


def collect_garbage_rarely() -> None:
    """Let the garbage collector run rarely: hundreds of requests that wait are objects that survive its first looks,
    and it then looks at all cached runs as well. That was half of the time of the event loop with 500 runs.
    """
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. It is opened before the server starts, so that a port in use is a one-line error."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio disables Nagle's algorithm only then: without it a response takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise exit_with(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    return listener
