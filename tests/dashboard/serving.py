"""A collector in this process, and a dashboard as a process of its own, each on a free port."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
import urllib3
import uvicorn

from monitor.app import create_app
from monitor.settings import Settings
from tests.fork_server import started
from tests.ports import free_port
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(
    engine: sa.Engine, settings: Settings | None = None, *, port: int = 0, lifespan: Literal["auto", "off"] = "auto"
) -> Iterator[str]:
    """The collector's address. It stops at the end of the block. `lifespan="off"`: it does nothing by itself."""
    app = create_app(settings or Settings(), engine=engine)
    config = uvicorn.Config(app, port=port, log_level="error", ws="none", lifespan=lifespan)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started or not thread.is_alive(), interval=0.01)
    assert server.started, "the collector did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    process: int
    """Its id."""

    def cpu_ms(self) -> float:
        """What the process has used so far (Linux)."""
        user, system = Path(f"/proc/{self.process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return 1000 * (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def dashboard(database: str, port: int | None = None, **settings: str) -> Iterator[Served]:
    """A dashboard process of its own; `settings` are environment variables."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    options = ("--port", str(port), "--database", database)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    with open(os.devnull, "wb") as nowhere:
        process = started("dashboard", *options, env=environment, log=nowhere, cwd=ROOT)
    try:
        wait_until_up(f"{url}/_stcore/health", process)
        yield Served(url, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_up(url: str, process: subprocess.Popen[Any], seconds: float = 60) -> None:
    http = urllib3.PoolManager(retries=False, timeout=2)
    is_over = eventually(lambda: process.poll() is not None or _answers(http, url), seconds, interval=0.1)
    if not is_over or process.poll() is not None:
        raise RuntimeError(f"nothing answers on {url} (exit code {process.poll()})")


def _answers(http: urllib3.PoolManager, url: str) -> bool:
    try:
        return http.request("GET", url).status < 500
    except urllib3.exceptions.HTTPError:
        return False
