"""The web server: its middleware, and what a real process answers to requests that no page of its own makes."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from dashboard import login
from dashboard.data.values_file import VALUES_ROUTE, ValuesFile, values_files
from dashboard.security_headers import HEADERS
from dashboard.server import create_app, host_names
from db.store.engine import writing
from tests.dashboard.login_provider import login_file
from tests.dashboard.serving import Served, dashboard
from tests.db.seed import add_run, add_segment, add_steps


def test_with_a_login_the_dashboard_answers_under_the_name_to_which_people_come_back(tmp_path: Path) -> None:
    file = login_file(tmp_path, dashboard="https://Lossguard.example.org")
    assert host_names(login.read(file)) == {"lossguard.example.org"}
    assert host_names(None) == frozenset()


def test_a_file_of_values_is_served_under_its_name_alone(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "my run/1")
        add_steps(session, run, add_segment(session, run, "a"), range(3))
    file = ValuesFile(str(store.url), "my run/1", ("loss",), (1, 2), False)
    with TestClient(create_app(), base_url="http://localhost") as http:
        answer = http.get(VALUES_ROUTE + values_files.name(file))
        unknown = http.get(VALUES_ROUTE + "guessed")
        unreadable = http.get(VALUES_ROUTE + values_files.name(replace(file, database="sqlite:////nonexistent/a.db")))
    rows = answer.text.splitlines()[1:]
    assert rows == [f"loss,live,0,{step},{step},{step}.0,{step}.0,{step}.0,{step}.0,1,0" for step in (1, 2)]
    assert answer.headers["content-disposition"] == 'attachment; filename="my-run-1-steps-1-2.csv"'
    assert (unknown.status_code, unreadable.status_code) == (404, 503)


OWN_NAME = "dash.example.org"
PATHS = ["/", "/run?run=r1", "/_stcore/health", "/_stcore/host-config", "/lossguard/plotly.min.js", "/nothing"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A dashboard process that viewers also open as OWN_NAME."""
    store = tmp_path_factory.mktemp("store") / "lossguard.db"
    with dashboard(f"sqlite:///{store}", LOSSGUARD_DASHBOARD_HOSTS=OWN_NAME) as running:
        yield running


def ask(served: Served, method: str, path: str, *headers: str) -> tuple[int, str]:
    """Status and the whole answer to a request with exactly these headers."""
    port = urlsplit(served.url).port
    assert port is not None
    lines = [f"{method} {path} HTTP/1.1", *headers, "Accept: text/html", "Connection: close"]
    if "/_stcore/stream" in path:
        lines[-1] = "Connection: Upgrade"
        lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = connection.recv(65536)
        while b"101 Switching" not in answer and (more := connection.recv(65536)):
            answer += more
    return int(answer.split(b" ", 2)[1]), answer.decode(errors="replace")


def here(served: Served) -> str:
    return urlsplit(served.url).netloc


@pytest.mark.slow
def test_pages_of_other_names_other_sites_and_other_programs_are_refused_everything(served: Served) -> None:
    for path in (*PATHS, "/_stcore/stream", "/_stcore/upload_file/a/b"):
        status, answer = ask(served, "GET", path, "Host: evil.example:8501", "Origin: http://evil.example:8501")
        assert (status, "The dashboard answers only at localhost, at IP addresses and at" in answer) == (403, True)
        assert ask(served, "GET", path)[0] in (400, 403)  # no Host at all
        method = "PUT" if "upload" in path else "GET"
        for origin in ("https://evil.example", "http://localhost:3000", "null"):
            assert ask(served, method, path, f"Host: {here(served)}", f"Origin: {origin}")[0] == 403


@pytest.mark.slow
def test_its_own_pages_connect_by_every_name_of_its_own(served: Served) -> None:
    for host in (here(served), OWN_NAME, f"{OWN_NAME}:8443"):
        assert ask(served, "GET", "/_stcore/stream", f"Host: {host}", f"Origin: https://{host}")[0] == 101


@pytest.mark.slow
def test_every_answer_forbids_frames_and_foreign_content(served: Served) -> None:
    for path, host in product(PATHS, (here(served), "evil.example")):
        _, answer = ask(served, "GET", path, f"Host: {host}")
        head = [line.lower() for line in answer.partition("\r\n\r\n")[0].split("\r\n")]
        for name, value in HEADERS.items():
            (found,) = [line for line in head if line.startswith(f"{name}: ")]
            assert name == "content-security-policy" or found == f"{name}: {value.lower()}"
        assert any("default-src 'none'" in line and "frame-ancestors 'none'" in line for line in head)
