"""A collector process for measurements, and the CPU time and the memory of a process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossguard import Client, CollectorError
from tests.ports import free_port
from tests.waiting import wait_for


@contextmanager
def collector(database: str, *, code: Path | None = None, **more: str) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a collector; `more` goes into its environment, `code` is another release's."""
    port = free_port()
    environment = os.environ | more | {"LOSSGUARD_DATABASE_URL": database, "OMP_NUM_THREADS": "1"}
    environment |= {} if code is None else {"PYTHONPATH": str(code)}
    command = [sys.executable, "-m", "monitor", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=code, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            wait_for(lambda: _answers(client), seconds=120, what="a collector that answers")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(process: int) -> float:
    """What a process has used so far (Linux)."""
    user, system = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(process: int) -> float:
    """The same for a process and all below it, those that have ended included if their parent has waited for them."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return cpu_seconds(process) + ended + sum(tree_cpu_seconds(int(child)) for child in children)


def exact_cpu_seconds(process: int, *, children: bool = False) -> float:
    """What the living threads of a process, and those of its children if asked, have used: to the microsecond (Linux).

    0 for a process that has ended. `cpu_seconds` counts in hundredths of a second, but also what has ended.
    """
    tasks = Path(f"/proc/{process}/task")
    try:
        used = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    except (FileNotFoundError, ProcessLookupError):  # a thread, or all of it, has ended while it was read
        return 0.0
    if not children:
        return used
    found = (tasks / str(process) / "children").read_text().split()
    return used + sum(exact_cpu_seconds(int(child)) for child in found)


def memory_mib(process: int, what: str) -> float:
    """MiB (Linux): VmRSS is the current value, VmHWM the peak so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def _answers(client: Client) -> bool:
    try:
        client.ping()
    except CollectorError:  # not listening yet
        return False
    return True
