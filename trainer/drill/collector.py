"""A collector of the drill's own, as a process: the trainer imports nothing of it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lossguard.protocol import API
from trainer.errors import UserMistake

PATIENCE = 60.0  # seconds that the collector may take to come up
POLL = 0.2  # seconds


@contextmanager
def collector(folder: Path) -> Iterator[str]:
    """The address of a collector on a free port, whose store is in `folder`. Raises UserMistake when none comes up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOSSGUARD_")}
    environment["LOSSGUARD_DATABASE_URL"] = f"sqlite:///{folder}/lossguard.db"
    command = [sys.executable, "-m", "monitor", "serve", "--port", str(port)]
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_until_up(process, f"http://127.0.0.1:{port}", folder / "collector.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that the collector answers under its API; a body is posted. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + API + path, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        return json.load(answer)


@contextmanager
def releasing(url: str, run_id: str) -> Iterator[None]:
    """Stands for the person who is asked when a run is held: says "go on" every time."""
    over = threading.Event()

    def watch() -> None:
        released: set[int] = set()
        while not over.wait(POLL):
            with suppress(OSError):  # the run is not there yet, or the collector is busy
                for order in ask(url, f"/runs/{run_id}")["orders"]:
                    if order["kind"] == "hold" and order["state"] == "applied" and order["id"] not in released:
                        ask(url, f"/runs/{run_id}/release", {})
                        released.add(order["id"])

    thread = threading.Thread(target=watch, name="drill-person")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise UserMistake(f"The drill's collector did not start: {lines[-1]}")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1.0):
                return
        except OSError:
            time.sleep(0.1)
    raise UserMistake(f"The drill's collector did not answer within {PATIENCE:.0f} s.")
