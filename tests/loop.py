"""A collector and a trainer as processes, as a user would start them."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lossguard import Client, CollectorError
from lossguard_server.processes import Processes
from tests.ports import free_port
from tests.waiting import wait_for

SMALL = "model.layers=1 model.heads=2 model.width=32 model.context=32 data.batch_size=4 checkpoint.every=25"


class Loop:
    """A collector and a trainer as a user would start them, on a free port and in a temporary folder."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes, self.folder = processes, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start_collector(self) -> subprocess.Popen[bytes]:
        environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{self.folder}/l.db"}
        collector = self.processes.start(
            "collector", "-m", "monitor", "serve", "--port", str(self.port), environment=environment
        )
        self.processes.wait_until_up("collector", f"{self.url}/healthz")
        return collector

    def start_trainer(self, steps: int, *arguments: str) -> subprocess.Popen[bytes]:
        common = ["--run-id", "r", "--steps", str(steps), "--out", str(self.folder / "out"), "--url", self.url]
        return self.processes.start(
            "trainer",
            "-m",
            "trainer",
            "run",
            *common,
            *small_settings(),
            *arguments,
            environment={"OMP_NUM_THREADS": "1"},
        )

    def ask(self, path: str = "") -> Any:
        """The collector's answer about the run; None while it is down or does not know the run."""
        try:
            with Client(self.url, timeout=30.0) as client:
                return client.get(f"/runs/r{path}")
        except CollectorError:
            return None

    def newest_step(self) -> int:
        run = self.ask()
        return run["newest_step"]["step"] if run and run["newest_step"] else -1

    def log(self, name: str) -> str:
        return self.processes.log_of(name).read_text()


def small_settings() -> list[str]:
    """SMALL as arguments of the trainer."""
    return [part for setting in SMALL.split() for part in ("--set", setting)]


def wait_while_it_runs(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, at most 200 s, and while `process` lives."""
    wait_for(lambda: condition() or process.poll() is not None, seconds=200, what="the condition of the test")
    assert process.poll() is None, "the process ended before it happened"
