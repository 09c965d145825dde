"""nginx with deploy/nginx/lossguard.conf in front of collectors and a dashboard, all as processes on free ports."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

from lossguard_server.processes import Processes
from tests.deploy.files import DEPLOY
from tests.deploy.stack import TOKEN, start_program
from tests.ports import free_port

CONF = DEPLOY / "nginx" / "lossguard.conf"
COLLECTOR, DASHBOARD = "localhost", "dashboard.localhost"
"""Names of this machine that replace those in the file."""
USER, PASSWORD = "ada", "a-password-of-the-tests"


@dataclass(frozen=True, slots=True)
class Proxy:
    port: int
    plain_port: int
    certificate: Path
    database: str
    processes: Processes
    collectors: Sequence[subprocess.Popen[bytes]]

    @property
    def collector(self) -> str:
        return f"https://{COLLECTOR}:{self.port}"

    @property
    def dashboard(self) -> str:
        return f"https://{DASHBOARD}:{self.port}"

    def process(self) -> int:
        """Process id of nginx; its workers are children of it."""
        return int((self.certificate.parent / "nginx.pid").read_text())

    def ask(
        self,
        method: str,
        name: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        source: str = "127.0.0.1",
    ) -> urllib3.BaseHTTPResponse:
        """The answer to a request for `name`, trusting its certificate; `source` is the client's address."""
        pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", self.port, ca_certs=str(self.certificate), server_hostname=name, assert_hostname=name,
            source_address=(source, 0), retries=False, timeout=20.0,
        )  # fmt: skip
        sent = {"host": f"{name}:{self.port}"} | dict(headers or {})
        with pool:
            return pool.request(method, path, headers=sent, body=body, redirect=False)


@contextmanager
def proxied(folder: Path, *, collectors: int = 1) -> Iterator[Proxy]:
    """Run all of them until the block ends; the collectors are `collector-0`, `collector-1`, .."""
    database = f"sqlite:///{folder}/l.db"
    settings = {"LOSSGUARD_DATABASE_URL": database, "LOSSGUARD_TOKEN": TOKEN}
    ports, dashboard = [free_port() for _ in range(collectors)], free_port()
    with Processes(folder / "logs") as processes:
        started = [
            processes.start(f"collector-{at}", "-m", "monitor", "serve", "--port", str(port), environment=settings)
            for at, port in enumerate(ports)
        ]
        named = settings | {"LOSSGUARD_DASHBOARD_HOSTS": DASHBOARD}
        processes.start("dashboard", "-m", "dashboard", "--port", str(dashboard), environment=named)
        for at, port in enumerate(ports):
            processes.wait_until_up(f"collector-{at}", f"http://127.0.0.1:{port}/healthz")
        processes.wait_until_up("dashboard", f"http://127.0.0.1:{dashboard}/_stcore/health")
        proxy = Proxy(free_port(), free_port(), folder / "lossguard.crt", database, processes, started)
        start_nginx(folder, proxy, ports, dashboard)
        yield proxy


@contextmanager
def in_front_of(folder: Path, collectors: Sequence[int], changes: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """Run nginx alone in front of what listens on these ports; `changes`: to patterns of the shipped file."""
    with Processes(folder / "logs") as processes:
        proxy = Proxy(free_port(), free_port(), folder / "lossguard.crt", "", processes, [])
        start_nginx(folder, proxy, collectors, free_port(), changes)
        yield proxy


def start_nginx(
    folder: Path, proxy: Proxy, collectors: Sequence[int], dashboard: int, changes: Mapping[str, str] | None = None
) -> None:
    """Start nginx in front of what listens on these ports; `changes`: to patterns of the shipped file."""
    make_certificate(folder)
    hashed = openssl("passwd", "-6", PASSWORD).strip()
    (folder / "lossguard.htpasswd").write_text(f"{USER}:{hashed}\n")
    main = write_configuration(folder, proxy, collectors, dashboard, changes or {})
    start_program(proxy.processes, "nginx", nginx(), "-c", main, "-g", "daemon off;", environment={})
    proxy.processes.wait_until_up("nginx", f"http://127.0.0.1:{proxy.plain_port}/up")


def nginx() -> Path:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert program is not None
    return Path(program)


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_certificate(folder: Path) -> None:
    """Create a self-signed certificate, as docs/operations.md does."""
    names = f"subjectAltName=DNS:{COLLECTOR},DNS:{DASHBOARD}"
    key, certificate = folder / "lossguard.key", folder / "lossguard.crt"
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
        "-subj", "/CN=lossguard", "-addext", names, "-keyout", key, "-out", certificate,
    )  # fmt: skip


def write_configuration(
    folder: Path, proxy: Proxy, collectors: Sequence[int], dashboard: int, more: Mapping[str, str]
) -> Path:
    """Write the shipped file with the names, ports and files of this test, and a minimal main file; the main file."""
    text = CONF.read_text()
    changes = {
        r" *listen \[::\].*\n": "",  # not every machine has IPv6
        r"listen 80;": f"listen 127.0.0.1:{proxy.plain_port};\n    location /up {{ return 200; }}",
        r"listen 443 ": f"listen 127.0.0.1:{proxy.port} ",
        r"return 308 .*?;": "location / { \\g<0> }",
        r"collector\.example\.org": COLLECTOR,
        r"dashboard\.example\.org": DASHBOARD,
        r"127\.0\.0\.1:8000 ": f"127.0.0.1:{collectors[0]} ",
        r"# server 127\.0\.0\.1:8001( .*)": "\n".join(rf"server 127.0.0.1:{port}\1" for port in collectors[1:]),
        r"127\.0\.0\.1:8501;": f"127.0.0.1:{dashboard};",
        r"/etc/nginx/": f"{folder}/",
        **more,
    }
    for pattern, change in changes.items():
        text, found = re.subn(pattern, change, text)
        assert found, f"{CONF} has no {pattern}"
    (folder / "lossguard.conf").write_text(text)
    start = "user root;\n" if os.geteuid() == 0 else ""  # the workers read the folder of this test
    start += "worker_processes auto;\nworker_rlimit_nofile 8192;\nevents { worker_connections 4096; }\n"
    places = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"{start}pid {folder}/nginx.pid;\nerror_log stderr;\n"
        f"http {{\n    access_log off;\n{places}    include {folder}/lossguard.conf;\n}}\n"
    )
    return main
