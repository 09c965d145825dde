"""`python -m dashboard` as a process of its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from dashboard.__main__ import app
from dashboard.figures.component import CHART_JS, CHART_URL, PLOTLY_URL
from tests.dashboard.serving import wait_until_up
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dashboard", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_it_serves_the_app_and_plotly(tmp_path: Path) -> None:
    port = free_port()
    process = start("--port", str(port), "--database", f"sqlite:///{tmp_path}/lossguard.db")
    try:
        wait_until_up(f"http://127.0.0.1:{port}/_stcore/health", process)
        http = urllib3.PoolManager(retries=False, timeout=20)
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "loopback only, not on 0.0.0.0; let viewers log in"),
        (["--host", "::"], "loopback only, not on ::; let viewers log in"),
        (["--host", "trainer.example"], "loopback only, not on trainer.example; let viewers log in"),
        (["--hosts", "https://a.example"], "LOSSGUARD_DASHBOARD_HOSTS: 'https://a.example' is not a host name"),
    ],
)
def test_a_wrong_option_is_one_sentence_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", None])
def test_a_bad_database_url_or_a_port_in_use_is_a_one_line_error_with_exit_code_2(
    tmp_path: Path, url: str | None
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = start("--database", url or f"sqlite:///{tmp_path}/lossguard.db", "--port", str(port))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    reason = "LOSSGUARD_DATABASE_URL" if url else f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert reason in errors
    assert len(errors.splitlines()) == 1
