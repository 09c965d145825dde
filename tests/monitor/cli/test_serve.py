"""`python -m monitor serve` as a user runs it."""

import gc
import platform
import socket
from pathlib import Path

import pytest
import urllib3

from lossguard_server.processes import Processes
from monitor.cli.serve import YOUNG_OBJECTS, collect_garbage_rarely, few_arenas, listen
from tests.fork_server import WarmProcesses
from tests.monitor.cli.command import monitor
from tests.ports import free_port


@pytest.mark.slow
def test_serve_makes_its_database_and_answers(tmp_path: Path) -> None:
    port = free_port()
    environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/new/folder/l.db"}
    with Processes(tmp_path / "logs") as processes:
        process = processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=environment)
        processes.wait_until_up("collector", f"http://127.0.0.1:{port}/readyz")
        paths = urllib3.request("GET", f"http://127.0.0.1:{port}/openapi.json").json()["paths"]
        assert "/api/v1/runs/{run_id}/reports" in paths
        process.terminate()
        assert process.wait(60) in (0, -15)


@pytest.mark.slow
@pytest.mark.parametrize(("trusted", "client"), [("", "9.9.9.9"), ("192.0.2.0/24", "127.0.0.1")])
def test_a_proxy_says_who_asks_when_it_is_trusted(tmp_path: Path, trusted: str, client: str) -> None:
    port = free_port()
    environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/l.db", "LOSSGUARD_TOKEN": "x" * 16}
    environment["LOSSGUARD_TRUSTED_PROXIES"] = trusted
    with WarmProcesses(tmp_path / "logs") as processes:
        processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=environment)
        processes.wait_until_up("collector", f"http://127.0.0.1:{port}/healthz")
        url, claimed = f"http://127.0.0.1:{port}/api/v1/runs", {"x-forwarded-for": "9.9.9.9"}
        assert urllib3.request("GET", url, headers=claimed, retries=False).status == 401
        assert f"no token from {client} for GET" in processes.log_of("collector").read_text()


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        store = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/l.db"}
        done = monitor("serve", "--port", str(taken.getsockname()[1]), **store)
    assert done.returncode == 2
    assert "choose another with --port" in done.stderr


@pytest.mark.slow
def test_a_file_with_the_token_is_refused_and_not_ignored(tmp_path: Path) -> None:
    """It is read by the entry point of the containers alone: the collector would have no token."""
    file = str(tmp_path / "token")
    database = f"sqlite:///{tmp_path}/l.db"
    done = monitor("serve", LOSSGUARD_DATABASE_URL=database, LOSSGUARD_TOKEN_FILE=file, LOSSGUARD_TOKN="x" * 16)
    assert done.returncode == 2
    assert "LOSSGUARD_TOKN is no setting of the collector; do you mean LOSSGUARD_TOKEN?\n" in done.stderr
    assert done.stderr.endswith(f": LOSSGUARD_TOKEN_FILE={file} is read in containers only; set LOSSGUARD_TOKEN\n")


def test_the_listener_names_its_protocol_so_that_answers_do_not_wait_for_a_delayed_ack() -> None:
    """A report took 80 ms in place of 30: asyncio turns Nagle's algorithm off only on sockets that say they are TCP."""
    listener = listen("127.0.0.1", free_port())
    assert listener.proto == socket.IPPROTO_TCP
    listener.close()


def test_the_threads_share_their_memory_where_the_c_library_can() -> None:
    """Each thread kept the memory of the largest body that it had parsed: 478 MiB under attack in place of 286."""
    assert few_arenas() is (platform.libc_ver()[0] == "glibc")


def test_the_garbage_collector_runs_rarely_but_runs() -> None:
    """With 500 requests that wait, and as many cached runs, it took half of the event loop's time."""
    before = gc.get_threshold()
    try:
        collect_garbage_rarely()
        assert gc.get_threshold() == (YOUNG_OBJECTS, *before[1:])
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()
