"""Child processes end with their parent, and a sentence says what prevents a start."""

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lossguard_server.processes import CannotRun, Processes, check_port, only_one
from tests.lossguard_server.process_state import alive, wait_until_gone

SLEEP = "import time; time.sleep(600)"


def test_leaving_the_block_ends_every_process(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        pids = [processes.start(str(number), "-c", SLEEP, environment={}).pid for number in range(2)]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_processes_end_even_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lossguard_server.processes import Processes\n"
        f"p = Processes(Path({str(tmp_path)!r})).start('x', '-c', {SLEEP!r}, environment={{}})\n"
        "print(p.pid, flush=True); p.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(child)


def test_a_process_that_ends_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("collector", "-c", "raise SystemExit('no room')", environment={})
        with pytest.raises(CannotRun, match="no room"):
            processes.wait_until_up("collector", "http://127.0.0.1:9/")


@pytest.mark.slow
def test_a_service_that_ends_while_others_run_is_named(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("trainer", "-c", "", environment={}).wait()
        processes.start("collector", "-c", SLEEP, environment={})
        processes.start("dashboard", "-c", SLEEP, environment={}).terminate()
        assert processes.wait_for_an_end(("collector", "dashboard")) == "dashboard"


def test_a_port_in_use_is_reported_with_the_option_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotRun, match=rf"port {port} for the collector is in use.*: demo --collector-port"):
            check_port(port, "collector", "demo --collector-port")
    check_port(port, "collector", "demo --collector-port")


def test_a_second_process_in_the_folder_names_the_first(tmp_path: Path) -> None:
    with only_one(tmp_path / "lock"), pytest.raises(CannotRun, match=f"process {os.getpid()}"):
        only_one(tmp_path / "lock")
    only_one(tmp_path / "lock").close()


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no file may grow: as on a full disk
    try:
        with pytest.raises(CannotRun, match=r"cannot write in .*; choose another with LOSSGUARD_DIR"):
            only_one(tmp_path / "lock")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
