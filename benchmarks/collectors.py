"""A real collector process for measurements, and what it costs."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossguard import Client, CollectorError


@contextmanager
def collector(database: str, **more: str) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a collector; `more` goes into its environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | more | {"LOSSGUARD_DATABASE_URL": database, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monitor", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(url)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(process: int) -> float:
    """What a process has used so far (Linux)."""
    user, system = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _wait_until_up(url: str) -> None:
    with Client(url) as client:
        for _ in range(300):
            try:
                client.ping()
            except CollectorError:  # not listening yet
                time.sleep(0.1)
            else:
                return
    raise TimeoutError("the collector did not start within 30 s")
