"""Collector, Prometheus and Alertmanager as processes with the files of deploy/, and a webhook that receives alerts."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import urllib3
import yaml

from lossguard.vocabulary.protocol import API
from lossguard_server.processes import Processes
from tests.deploy.files import DEPLOY, read
from tests.ports import free_port

TOKEN = "a-token-of-the-tests"
HTTP = urllib3.PoolManager(retries=False, timeout=30.0)


@dataclass
class Webhook:
    """The alerts that reached the webhook: (Unix time, alert), in order."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """Everything that was posted, in order; Slack's messages are not alerts."""
    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def first(self, name: str, status: str) -> tuple[float, dict[str, Any]] | None:
        """The first notification of this alert with the status `firing` or `resolved`."""
        found = (one for one in self.received if (one[1]["labels"]["alertname"], one[1]["status"]) == (name, status))
        return next(found, None)


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook receiver on loopback."""
    receiver = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.messages.append(message)
            receiver.received += [(time.time(), alert) for alert in message.get("alerts", ())]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/alerts"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield receiver
        server.shutdown()


class Stack:
    """`seconds` replaces every interval in the files of deploy/; None leaves them as they are."""

    def __init__(self, processes: Processes, folder: Path, webhook_url: str, *, seconds: int | None = None) -> None:
        self._processes, self._folder, self._seconds = processes, folder, seconds
        self.collector, self.prometheus, self.alertmanager = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        self.database = f"sqlite:///{folder}/l.db"
        self._secrets = folder / "secrets"
        self._start_collector()
        self._install_tokens()
        self._start_alertmanager(webhook_url)
        self._start_prometheus()

    def ask(self, path: str) -> Any:
        """The collector's answer to a GET under its API; None for any status but 200."""
        answer = HTTP.request("GET", f"{self.collector}{API}{path}", headers={"authorization": f"Bearer {TOKEN}"})
        return json.loads(answer.data) if answer.status == 200 else None

    def _start_collector(self) -> None:
        settings = {"LOSSGUARD_DATABASE_URL": self.database, "LOSSGUARD_TOKEN": TOKEN}
        command = ("-m", "monitor", "serve", "--port", self.collector.rpartition(":")[2])
        self._processes.start("collector", *command, environment=settings)
        self._processes.wait_until_up("collector", f"{self.collector}/healthz")

    def secret(self, name: str) -> str:
        """The secret of this name, as deploy/secrets.sh made it."""
        return (self._secrets / name).read_text()

    def _install_tokens(self) -> None:
        """As the service `migrate` of docker-compose.yml does."""
        subprocess.run([DEPLOY / "secrets.sh", self._secrets], check=True, capture_output=True)
        script = read(DEPLOY.parent / "docker-compose.yml")["services"]["migrate"]["command"][-1]
        script = script.replace("/run/secrets", str(self._secrets)).replace("python ", f"{sys.executable} ")
        environment = os.environ | {"LOSSGUARD_DATABASE_URL": self.database}
        subprocess.run(["sh", "-ec", script], env=environment, check=True, capture_output=True)

    def _start_alertmanager(self, webhook_url: str) -> None:
        shutil.copytree(DEPLOY / "alertmanager", self._folder / "alertmanager")
        config = self._folder / "alertmanager" / "alertmanager.yml"
        if self._seconds is not None:
            config.write_text(re.sub(r"(group_\w+): \w+", rf"\1: {self._seconds}s", config.read_text()))
        written = self._folder / "written"
        written.mkdir()
        listen = f"--web.listen-address={self.alertmanager.removeprefix('http://')}"
        storage = f"--storage.path={self._folder}/alertmanager-data"
        alone = "--cluster.listen-address="
        start = self._folder / "alertmanager" / "start.sh"
        receivers = {"PAGE_WEBHOOK_URL": webhook_url, "PAGE_SLACK_URL": webhook_url}
        start_program(self._processes, "alertmanager", start, written, listen, storage, alone, environment=receivers)
        self._processes.wait_until_up("alertmanager", f"{self.alertmanager}/-/ready")

    def _start_prometheus(self) -> None:
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._prometheus_config()))
        arguments = (
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder}/prometheus-data",
            f"--web.listen-address={self.prometheus.removeprefix('http://')}",
            "--enable-feature=expand-external-labels",
        )
        links = {"LOSSGUARD_DASHBOARD_URL": "http://dash:8501", "LOSSGUARD_RUNBOOK_URL": "http://book/runbook.md"}
        program = shutil.which("prometheus")
        assert program is not None
        start_program(self._processes, "prometheus", Path(program), *arguments, environment=links)
        self._processes.wait_until_up("prometheus", f"{self.prometheus}/-/ready")

    def _prometheus_config(self) -> dict[str, Any]:
        """The shipped configuration, with the addresses of this stack."""
        config: dict[str, Any] = read(DEPLOY / "prometheus" / "prometheus.yml")
        rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
        if self._seconds is not None:
            short = f"{self._seconds}s"
            config["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), short)
            rules = re.sub(r"keep_firing_for: \w+", f"keep_firing_for: {short}", rules)
        (self._folder / "rules.yml").write_text(rules)
        target = [{"targets": [self.alertmanager.removeprefix("http://")]}]
        config["alerting"]["alertmanagers"] = [{"static_configs": target}]
        collectors = next(job for job in config["scrape_configs"] if job["job_name"] == "lossguard")
        del collectors["dns_sd_configs"]
        credentials = collectors["authorization"]["credentials_file"]
        collectors["authorization"]["credentials_file"] = credentials.replace("/run/secrets", str(self._secrets))
        collectors["static_configs"] = [{"targets": [self.collector.removeprefix("http://")]}]
        return config | {"scrape_configs": [collectors]}


def start_program(
    processes: Processes, name: str, program: Path, *arguments: str | Path, environment: Mapping[str, str]
) -> None:
    """Processes starts Python programs only: this one replaces itself by `program`."""
    become = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    path = {"PATH": f"/usr/bin:/bin:{os.environ.get('PATH', '')}"}
    processes.start(name, "-c", become, str(program), *map(str, arguments), environment=path | dict(environment))
