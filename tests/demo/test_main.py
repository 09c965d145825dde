"""The demo as a user runs it without a terminal."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lossguard_server.process_state import children, wait_until_gone
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.slow


def demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        env=os.environ | {"LOSSGUARD_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ports() -> list[str]:
    return ["--collector-port", str(free_port()), "--dashboard-port", str(free_port())]


@pytest.mark.system
@pytest.mark.slow(70)
@pytest.mark.timeout(600)
def test_the_injected_spike_is_detected_rolled_back_and_verified(tmp_path: Path) -> None:
    process = demo(tmp_path, *ports())
    output, _ = process.communicate()
    assert process.returncode == 0, output
    for words in ("rolled back ", "rewound to", "skipped", "steps lost", "verified   │ yes", "final loss"):
        assert words in output, output
    assert f"env LOSSGUARD_DATABASE_URL=sqlite:///{tmp_path}/demo/lossguard.db make serve\n" in output


def test_a_port_in_use_is_reported_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = demo(tmp_path, "--collector-port", str(taken.getsockname()[1]))
        output, _ = process.communicate()
    assert process.returncode == 2
    assert "in use" in output
    assert ".venv/bin/python -m demo --collector-port PORT" in output
    assert output.count("\n") == 1


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupted_demo_leaves_no_process_and_a_second_one_names_the_first(tmp_path: Path) -> None:
    first = demo(tmp_path, *ports())
    assert eventually(lambda: len(children(first.pid)) == 3, 120)
    second = demo(tmp_path, *ports())
    output, _ = second.communicate()
    assert second.returncode == 2
    assert f"process {first.pid}" in output
    started = children(first.pid)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate()
    assert first.returncode == 130
    assert "all its processes have ended" in output
    assert all(wait_until_gone(pid) for pid in started)
