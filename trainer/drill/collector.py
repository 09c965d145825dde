"""A collector for the drill, in a process of its own: the trainer imports nothing of it."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lossguard import Client, CollectorError
from trainer.errors import UsageError

START_TIMEOUT = 60.0  # seconds
STOP_TIMEOUT = 15.0  # seconds
POLL_SECONDS = 0.2
MAX_STARTS = 3
"""Maximum starts of a collector, each on another port."""


class _PortTaken(UsageError):
    """Another process listens on the port."""


@contextmanager
def run_collector(folder: Path) -> Iterator[Client]:
    """A collector on a free port, with its database in `folder`. Raises UsageError when it does not start."""
    with ExitStack() as stack:
        for starts_left in reversed(range(MAX_STARTS)):
            try:
                client = stack.enter_context(_collector_at(_free_port(), folder))
                break
            except _PortTaken:  # by another process, after it was free
                if not starts_left:
                    raise
        yield client


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _collector_at(port: int, folder: Path) -> Iterator[Client]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOSSGUARD_")}
    environment["LOSSGUARD_DATABASE_URL"] = f"sqlite:///{folder}/lossguard.db"
    command = [sys.executable, "-m", "monitor", "serve", "--port", str(port)]
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            _wait_until_up(process, client, folder / "collector.log")
            yield client
    finally:
        _stop(process)


@contextmanager
def release_holds(client: Client, run_id: str) -> Iterator[None]:
    """Release the run whenever it is held, as an operator would."""
    over = threading.Event()

    def watch() -> None:
        released: set[int] = set()
        while not over.wait(POLL_SECONDS):
            with suppress(CollectorError):  # the run does not exist yet, or the collector is busy
                for order in client.get(f"/runs/{run_id}")["orders"]:
                    if order["kind"] == "hold" and order["state"] == "applied" and order["id"] not in released:
                        client.request("POST", f"/runs/{run_id}/release", {})
                        released.add(order["id"])

    thread = threading.Thread(target=watch, name="drill-operator")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_until_up(process: subprocess.Popen[bytes], client: Client, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["its log is empty"]
            kind = _PortTaken if os.strerror(errno.EADDRINUSE) in lines[-1] else UsageError
            raise kind(f"The drill's collector did not start: {lines[-1]}")
        try:
            client.ping()
        except CollectorError:
            time.sleep(0.1)
        else:
            return
    raise UsageError(f"The drill's collector did not answer within {START_TIMEOUT:.0f} s.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
