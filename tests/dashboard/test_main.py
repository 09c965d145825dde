"""`python -m dashboard` as a process of its own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from dashboard.__main__ import app
from dashboard.figures.component import CHART_JS, CHART_URL, PLOTLY_URL
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dashboard", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def error_exit(*arguments: str) -> tuple[int, str]:
    process = start(*arguments)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.slow
def test_it_serves_the_app_and_plotly(tmp_path: Path) -> None:
    port = free_port()
    process = start("--port", str(port), "--database", f"sqlite:///{tmp_path}/lossguard.db")
    try:
        http = urllib3.PoolManager(retries=False, timeout=20)
        deadline = time.monotonic() + 60
        while True:
            try:
                health = http.request("GET", f"http://127.0.0.1:{port}/_stcore/health")
                break
            except urllib3.exceptions.HTTPError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert health.status == 200
        script = http.request("GET", f"http://127.0.0.1:{port}/lossguard/plotly.min.js")
        assert script.status == 200
        assert len(script.data) > 1_000_000
        chart = http.request("GET", f"http://127.0.0.1:{port}{CHART_URL}")
        assert (chart.status, chart.data) == (200, CHART_JS)
        page = http.request("GET", f"http://127.0.0.1:{port}/run?run=r1", headers={"accept": "text/html"})
        assert (page.status, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
        assert f'<script async src="{PLOTLY_URL}"></script>' in page.data.decode()
        assert int(page.headers["Content-Length"]) == len(page.data)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "trainer.example"])
def test_it_listens_on_a_network_address_only_with_open_to_network(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["--host", host])
    assert ended.value.code == 2
    assert f"loopback only, not on {host}; let viewers log in" in capsys.readouterr().err


def test_a_wrong_list_of_host_names_is_one_sentence_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["--hosts", "https://dash.example.org"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "LOSSGUARD_DASHBOARD_HOSTS: 'https://dash.example.org' is not a host name" in line


@pytest.mark.slow
def test_a_port_in_use_is_a_one_line_error_with_exit_code_2(taken_port: int, tmp_path: Path) -> None:
    code, errors = error_exit("--port", str(taken_port), "--database", f"sqlite:///{tmp_path}/lossguard.db")
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{taken_port}: Address already in use" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name"])
def test_a_bad_database_url_is_a_one_line_error_with_exit_code_2(url: str) -> None:
    code, errors = error_exit("--database", url)
    assert code == 2
    assert "LOSSGUARD_DATABASE_URL" in errors
    assert len(errors.splitlines()) == 1
