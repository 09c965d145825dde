"""TLS in front of collector and dashboard: the shipped configuration in a real nginx, used by a run and a browser."""

import json
import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import urllib3

import lossguard
from db import queries
from db.store.engine import create_engine, reading
from lossguard.client.client import Client
from lossguard.vocabulary.errors import Rejected, Unreachable
from lossguard.vocabulary.protocol import API
from monitor.api.auth import MAX_FAILED_ATTEMPTS
from monitor.settings import Settings
from tests.dashboard.live import report_a_spike
from tests.deploy.proxy import COLLECTOR, DASHBOARD, PASSWORD, USER, Proxy, in_front_of, nginx, proxied
from tests.deploy.stack import TOKEN
from tests.waiting import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import HttpCredentials

pytestmark = [pytest.mark.system, pytest.mark.needs("nginx")]
MANY = 100
BEARER = {"authorization": f"Bearer {TOKEN}"}
BASIC = urllib3.make_headers(basic_auth=f"{USER}:{PASSWORD}")
LIMIT = Settings().max_report_bytes


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxied(tmp_path_factory.mktemp("proxy")) as running:
        yield running


def test_nginx_accepts_the_configuration_without_a_warning(proxy: Proxy) -> None:
    command: list[str | Path] = [nginx(), "-t", "-q", "-c", proxy.certificate.with_name("nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_reports_over_tls_when_the_certificate_is_named(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.certificate))
    with lossguard.init("proxied", run_id="over-tls", url=proxy.collector, token=TOKEN, directory=tmp_path) as run:
        for step in range(30):
            run.log(step, loss=2.0)
    stored = json.loads(proxy.ask("GET", COLLECTOR, f"{API}/runs/over-tls", headers=BEARER).data)
    assert (stored["state"], stored["steps_consumed"]) == ("finished", 30)


def test_the_error_about_an_untrusted_certificate_says_how_to_trust_it(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(Unreachable, match=r"certificate is refused: self-signed certificate; .* with SSL_CERT_FILE"):
        Client(proxy.collector, TOKEN).request("POST", "/runs", {})


def test_a_body_beyond_the_limit_gets_413_which_makes_the_sdk_send_less_at_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.certificate))
    client = Client(proxy.collector, TOKEN)
    with pytest.raises(Rejected, match=r"413 .*raise the limit of the proxy .at body"):
        client.request("POST", "/runs/r/reports", {"padding": "x" * LIMIT})
    answer = proxy.ask("POST", COLLECTOR, f"{API}/runs", headers=BEARER, body=b"{}".ljust(LIMIT))
    assert answer.status == 422, "a body of the collector's limit reaches it"


def test_http_redirects_to_https(proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.plain_port}/api/v1/runs?x=1"
    for name in (COLLECTOR, DASHBOARD):
        answer = urllib3.request("POST", url, headers={"host": name}, redirect=False, retries=False)
        assert (answer.status, answer.headers["location"]) == (308, f"https://{name}/api/v1/runs?x=1")


def test_the_collectors_tokens_are_passed_on_and_required(proxy: Proxy) -> None:
    for headers, status in ((BEARER, 200), ({}, 401)):
        assert proxy.ask("GET", COLLECTOR, f"{API}/runs", headers=headers, source="127.0.0.9").status == status


def test_failed_attempts_are_counted_by_client_whatever_it_claims_to_be(proxy: Proxy) -> None:
    def attempt(source: str, claimed: str) -> int:
        headers = {"authorization": "Bearer wrong", "x-forwarded-for": claimed}
        return proxy.ask("GET", COLLECTOR, f"{API}/runs", headers=headers, source=source).status

    assert [attempt("127.0.0.2", f"10.0.0.{at}") for at in range(MAX_FAILED_ATTEMPTS)] == [401] * MAX_FAILED_ATTEMPTS
    assert attempt("127.0.0.2", "10.0.1.1") == 429
    assert attempt("127.0.0.3", "127.0.0.2") == 401, "another client is not locked out"


@pytest.mark.parametrize("credentials", [{}, urllib3.make_headers(basic_auth=f"{USER}:wrong")], ids=["none", "wrong"])
def test_the_dashboard_needs_a_password(proxy: Proxy, credentials: dict[str, str]) -> None:
    for path in ("/", "/_stcore/stream", "/_stcore/health"):
        assert proxy.ask("GET", DASHBOARD, path, headers=credentials).status == 401
    assert proxy.ask("GET", DASHBOARD, "/", headers=BASIC).status == 200


@pytest.mark.parametrize("origin", [None, "https://elsewhere.example.org"], ids=["same host", "elsewhere"])
def test_the_dashboards_websocket_accepts_only_its_own_pages(proxy: Proxy, origin: str | None) -> None:
    host = f"{DASHBOARD}:{proxy.port}"
    lines = [
        "GET /_stcore/stream HTTP/1.1", f"host: {host}", "connection: Upgrade", "upgrade: websocket",
        "sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        f"origin: {origin or f'https://{host}'}", f"authorization: {BASIC['authorization']}",
    ]  # fmt: skip
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=DASHBOARD) as connection,
    ):
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        status = int(connection.recv(4096).split(b" ", 2)[1])
    assert status == (101 if origin is None else 403)


@pytest.mark.parametrize(
    ("name", "path", "headers"),
    [(COLLECTOR, "/healthz", {}), (COLLECTOR, "/docs", BEARER), (DASHBOARD, "/", BASIC), (DASHBOARD, "/", {})],
)
def test_no_header_is_sent_twice_and_the_browser_must_stay_with_tls(
    proxy: Proxy, name: str, path: str, headers: dict[str, str]
) -> None:
    answer = proxy.ask("GET", name, path, headers=headers)
    times = Counter(header.lower() for header, _ in answer.headers.iteritems())
    assert {header for header, count in times.items() if count > 1} <= {"vary", "set-cookie"}
    wanted = {"strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy"}
    assert wanted <= set(times)
    assert answer.headers["x-frame-options"] == "DENY"
    assert (
        answer.status == 401 or "frame-ancestors 'none'" in answer.headers["content-security-policy"] or path == "/docs"
    )
    assert "/" not in answer.headers["server"], "the release of nginx is not disclosed"


@pytest.mark.needs("chromium")
def test_a_browser_follows_a_run_through_the_proxy_and_is_asked_for_a_token_before_it_acts(proxy: Proxy) -> None:
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    from tests.dashboard.browser import chromium, click, drawn  # late: they import it

    engine = create_engine(proxy.database)
    report_a_spike(engine)
    engine.dispose()
    with chromium() as browser:
        login: HttpCredentials = {"username": USER, "password": PASSWORD}
        page = browser.new_context(ignore_https_errors=True, http_credentials=login).new_page()
        page.goto(f"{proxy.dashboard}/incident?run=asking")
        drawn(page)
        click(page, "Roll back manually")
        page.get_by_role("dialog").get_by_role("textbox", name="Token with the scope").wait_for(timeout=30_000)


def test_a_run_stays_with_one_of_two_collectors_and_the_other_takes_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(tmp_path, collectors=2) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.certificate))
        url, folder = proxy.collector, tmp_path / "spool"
        with lossguard.init("proxied", run_id="moves", url=url, token=TOKEN, directory=folder) as run:

            def report(steps: range) -> None:
                for step in steps:
                    run.log(step, loss=2.0)
                wait_for(lambda: stored(proxy, "moves") == steps.stop, seconds=60, what=f"{steps.stop} steps")

            for first in range(0, 50, 10):
                report(range(first, first + 10))
            (used,) = [at for at in (0, 1) if "run=moves" in proxy.processes.log_of(f"collector-{at}").read_text()]
            proxy.collectors[used].terminate()
            proxy.collectors[used].wait(60)
            report(range(50, 60))


class Together(BaseHTTPRequestHandler):
    """Answers MANY requests at once, when all of them are there, as a collector that stores them in one transaction."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[Any]] = set()
    all_there: ClassVar[threading.Barrier]

    def do_POST(self) -> None:
        self.connections.add(self.client_address)
        self.rfile.read(int(self.headers["content-length"]))
        self.all_there.wait(60)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


PATIENT = {"proxy_read_timeout 10s": "proxy_read_timeout 60s"}
"""To the shipped file: the last of MANY requests may come so much later than the first."""


class Upstream(ThreadingHTTPServer):
    request_queue_size, daemon_threads = MANY, True


def test_reports_that_are_answered_at_once_leave_their_connections_to_the_next_ones(tmp_path: Path) -> None:
    Together.all_there, Together.connections = threading.Barrier(MANY), set()
    with Upstream(("127.0.0.1", 0), Together) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with in_front_of(tmp_path, [server.server_port], PATIENT) as proxy, ThreadPoolExecutor(MANY) as pool:
            http = urllib3.PoolManager(maxsize=MANY, block=True, ca_certs=str(proxy.certificate), retries=False)
            for _ in range(2):
                sent = [
                    pool.submit(http.request, "POST", f"{proxy.collector}{API}/runs/{number}/reports", body=b"{}")
                    for number in range(MANY)
                ]
                assert {one.result().status for one in sent} == {200}
        server.shutdown()
    assert len(Together.connections) == MANY


def stored(proxy: Proxy, run_id: str) -> int:
    """Number of stored steps of the run."""
    engine = create_engine(proxy.database)
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        count = 0 if run is None else queries.step_counts(session, run=run).consumed
    engine.dispose()
    return count
