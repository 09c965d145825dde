"""The stack of docker-compose.yml on the test's own engine, with free ports, new secrets and a webhook."""

import csv
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import urllib3
import yaml

from lossguard.vocabulary.protocol import API
from tests.ports import free_port
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
OVERRIDE = Path(__file__).with_name("override.yml")
WEBHOOK_URL = "http://webhook:8080/alerts"
OMITTED = {"grafana": "Debian has no package of it"}
T = TypeVar("T")
TIMEOUT = 1200.0  # seconds that a command may take
HTTP = urllib3.PoolManager(retries=False, timeout=10.0)


class Failed(Exception):
    """An expectation that did not hold, in one sentence."""


@dataclass(frozen=True, slots=True)
class Notification:
    """An alert that reached the webhook."""

    time: float
    """Unix time of its arrival."""
    alert: str
    status: str
    """firing or resolved"""
    run: str | None


class Stack:
    def __init__(self, engine: Mapping[str, str], folder: Path) -> None:
        self.secrets = folder / "secrets"
        run([ROOT / "deploy" / "secrets.sh", self.secrets])
        names = ("COLLECTOR", "DASHBOARD", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
        self.ports = {name.lower(): free_port() for name in names}
        self.environment = {
            **engine,
            **{f"LOSSGUARD_{name}_PORT": str(self.ports[name.lower()]) for name in names},
            "LOSSGUARD_SECRETS": str(self.secrets),
            "PAGE_WEBHOOK_URL": WEBHOOK_URL,
        }

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """The services as docker-compose.yml configures them."""
        read: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        return read

    def compose(self, *arguments: str, **environment: str) -> str:
        """Run `docker-compose ARGUMENTS`; its output. Raises Failed."""
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(OVERRIDE)]
        command = ["docker-compose", *files, "--profile", "trainer", *arguments]
        return run(command, **self.environment | environment)

    def docker(self, *arguments: str) -> str:
        return run(["docker", *arguments], **self.environment)

    def up(self) -> None:
        """Start everything but the trainer and the omitted services, and wait until it is healthy."""
        wanted = [name for name in self.services if name not in OMITTED and name != "trainer"]
        self.compose("up", "--detach", "--wait", "--no-build", *wanted, "webhook")

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")

    def container(self, service: str) -> dict[str, Any]:
        """`docker inspect` of a service's container."""
        (name,) = self.compose("ps", "--all", "--quiet", service).split()
        (described,) = json.loads(self.docker("inspect", name))
        return dict(described)

    def logs(self, service: str) -> list[str]:
        """The log lines of a service, without terminal control sequences."""
        lines = self.compose("logs", "--no-log-prefix", "--no-color", service).splitlines()
        return [line.removeprefix("\x1b[2K") for line in lines]

    def wait_until_healthy(self, service: str) -> None:
        wait_for(
            lambda: self.container(service)["State"].get("Health", {}).get("Status") == "healthy",
            seconds=90,
            what=f"{service} healthy",
        )

    def train(self, run_id: str, steps: int) -> str:
        """Start a run without a fault; the name of its container."""
        command = ["python", "-m", "trainer", "run", "--run-id", run_id, "--steps", str(steps), "--out", "/runs"]
        self.compose("run", "--detach", "--no-deps", "--name", run_id, "trainer", *command)
        return run_id

    def wait_until_ended(self, container: str) -> None:
        """Wait until it exits with 0, then remove it. Raises Failed."""
        code = self.docker("wait", container).strip()
        if code != "0":
            raise Failed(f"{container} exited with {code}: {self.docker('logs', '--tail', '5', container)}")
        self.docker("rm", container)

    def ask(self, path: str) -> bytes | None:
        """The collector's answer to a GET under its API; None while it does not answer with 200."""
        token = (self.secrets / "lossguard_token").read_text()
        url = f"http://127.0.0.1:{self.ports['collector']}{API}{path}"
        try:
            answer = HTTP.request("GET", url, headers={"authorization": f"Bearer {token}"})
        except urllib3.exceptions.HTTPError:
            return None
        return answer.data if answer.status == 200 else None

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the collector describes it; empty while it does not answer or does not know the run."""
        answer = self.ask(f"/runs/{run_id}")
        return {} if answer is None else dict(json.loads(answer))

    def newest_step(self, run_id: str) -> int:
        newest = self.run(run_id).get("newest_step")
        return -1 if newest is None else int(newest["step"])

    def steps(self, run_id: str) -> list[dict[str, str]]:
        """Every stored step, as rows of the CSV export."""
        answer = self.ask(f"/runs/{run_id}/export?format=csv")
        if answer is None:
            raise Failed(f"run {run_id} cannot be exported")
        return list(csv.DictReader(answer.decode().splitlines()))

    def notifications(self) -> list[Notification]:
        """The alerts that reached the webhook, in order."""
        alerts = [json.loads(line) for line in self.logs("webhook")]
        return [
            Notification(one["time"], one["labels"]["alertname"], one["status"], one["labels"].get("run"))
            for one in alerts
        ]


def run(command: Sequence[str | Path], **environment: str) -> str:
    """What the command prints. Raises Failed with its last lines. An interrupt ends all that it has started, too."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        last = "\n".join((output + errors).strip().splitlines()[-12:])
        raise Failed(f"`{' '.join(map(str, command))}` exited with {process.returncode}:\n{last}")
    return output


def wait_for(condition: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """What `condition` returns once that is true. Raises Failed after `seconds`."""
    found = eventually(condition, seconds, interval=0.5)
    if not found:
        raise Failed(f"not within {seconds:.0f} s: {what}")
    return found
