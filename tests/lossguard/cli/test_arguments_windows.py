"""What works on Windows, in a Python from which what Windows lacks is taken away."""

import subprocess
import sys

import pytest

WINDOWS = """
import os, signal, sys
sys.modules |= dict.fromkeys(("fcntl", "grp", "pty", "pwd", "resource", "termios"))
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pthread_sigmask"):
    delattr(signal, name)
for name in ("O_CLOEXEC", "O_NONBLOCK", "fork", "killpg", "pipe2", "posix_spawnp", "pread", "pwrite"):
    delattr(os, name)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import ssl, subprocess, tempfile\n{WINDOWS}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "where a run stands"),
        (["show", "r", "--url", "http://127.0.0.1:9"], 4, "no collector answers at http://127.0.0.1:9"),
        (["launch", "--", "python", "train.py"], 2, "lossguard launch needs Linux; on Windows use WSL 2"),
    ],
)
def test_the_commands_of_a_client_work_on_windows_and_the_others_say_what_they_need(
    arguments: list[str], code: int, text: str
) -> None:
    ended = run(f"import sys; from lossguard.__main__ import main; sys.exit(main({arguments}))")
    assert (ended.returncode, text in ended.stdout + ended.stderr) == (code, True), ended.stderr


def test_the_sdk_is_imported_on_windows_and_says_that_a_run_cannot_be_recorded_there() -> None:
    ended = run(
        """
import tempfile, lossguard
lossguard.Client("http://127.0.0.1:9"), lossguard.Guard
lossguard.init("p", mode="off").log(0, loss=1.0)
try:
    lossguard.init("p", mode="offline", directory=tempfile.mkdtemp())
except lossguard.ConfigurationError as problem:
    print(problem)
"""
    )
    assert "cannot be locked on Windows: record runs on Linux or macOS, or in WSL 2" in ended.stdout, ended.stderr
