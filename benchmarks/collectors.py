"""A collector process for measurements, and the CPU time of a process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from tests.ports import free_port
from tests.waiting import wait_for


@contextmanager
def collector(database: str, **more: str) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a collector; `more` goes into its environment."""
    port = free_port()
    environment = os.environ | more | {"LOSSGUARD_DATABASE_URL": database, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monitor", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _is_up(url), seconds=30, what="a collector that answers")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(process: int) -> float:
    """CPU time that a process has used so far (Linux)."""
    user, system = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _is_up(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/healthz", retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False  # not listening yet
