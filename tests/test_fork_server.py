"""Processes of a fork server behave like those that start cold."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fork_server import WarmProcesses, started
from tests.ports import free_port

pytestmark = [pytest.mark.slow(3), pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they start cold")]


def test_a_process_has_its_own_arguments_environment_and_output_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    def exit_code(*arguments: str, **environment: str) -> int:
        with (tmp_path / "log").open("ab") as log:
            return started("monitor", *arguments, env=os.environ | environment, log=log).wait(60)

    assert exit_code("settings") == 0
    assert exit_code("nope") == 2
    assert exit_code("token", "list", LOSSGUARD_DATABASE_URL="x") == 2
    text = (tmp_path / "log").read_text()
    for words in ("LOSSGUARD_MAX_METRICS", "No such command 'nope'", "'x' is not a database URL"):
        assert words in text


def test_a_server_is_waited_for_and_ends_by_the_signal_that_it_is_sent(tmp_path: Path) -> None:
    port = free_port()
    with WarmProcesses(tmp_path) as processes:
        environment = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{tmp_path}/l.db"}
        process = processes.start("c", "-m", "monitor", "serve", "--port", str(port), environment=environment)
        processes.wait_until_up("c", f"http://127.0.0.1:{port}/healthz")
        assert Path(f"/proc/{process.pid}/cwd").resolve() == Path.cwd()
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        assert process.poll() == -signal.SIGKILL
        assert not Path(f"/proc/{process.pid}").exists()
