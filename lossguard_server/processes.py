"""Child processes that end when their parent ends, however it ends."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import urllib3

PR_SET_PDEATHSIG = 1


class CannotRun(Exception):
    """One sentence that names the obstacle and the remedy."""


def only_one(lock: Path) -> IO[str]:
    """Hold `lock` until the process ends. Raises CannotRun when another process holds it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a+")
    except OSError as error:
        raise _cannot_write(lock.parent, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip()
        handle.close()
        raise CannotRun(
            f"process {holder} uses {lock.parent}; stop it, or choose another folder with LOSSGUARD_DIR"
        ) from None
    try:
        handle.truncate(0)
        os.write(handle.fileno(), str(os.getpid()).encode())  # not buffered: on a full disk, closing would fail too
    except OSError as error:
        handle.close()
        raise _cannot_write(lock.parent, error) from None
    return handle


def _cannot_write(folder: Path, error: OSError) -> CannotRun:
    return CannotRun(f"cannot write in {folder}: {error.strerror}; choose another with LOSSGUARD_DIR")


def check_port(port: int, what: str, other: str) -> None:
    """Raise CannotRun when something listens on `port` of this machine; `other` is the command for another port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise CannotRun(
                f"port {port} for the {what} is in use; stop the program that listens there, or choose another: {other}"
            ) from None


class Processes:
    """A group of child processes; leaving the block ends all of them, in reverse order."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_exception: object) -> None:
        for name, process in reversed(self._running):
            end(name, process)

    def log_of(self, name: str) -> Path:
        """The log file of a process."""
        return self._logs / f"{name}.log"

    def start(
        self, name: str, *arguments: str, environment: Mapping[str, str], show: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start `python ARGUMENTS`; its output goes to its log, or to our output if `show`."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log_of(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=None if show else log,
                stderr=None if show else log,
                start_new_session=True,  # Ctrl-C reaches only us; we end the others in order
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )
        self._running.append((name, process))
        return process

    def wait_until_up(self, name: str, url: str, *, timeout: float = 60.0) -> None:
        """Wait until `url` answers. Raises CannotRun, with the end of the log, when the process ends first."""
        process = dict(self._running)[name]
        deadline = time.monotonic() + timeout
        http = urllib3.PoolManager(retries=False, timeout=1.0)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CannotRun(f"the {name} did not start:\n{self._last_lines(name)}")
            with suppress(urllib3.exceptions.HTTPError):
                if http.request("GET", url).status == 200:
                    return
            time.sleep(0.1)
        raise CannotRun(f"the {name} did not answer within {timeout:.0f} s; its log is {self.log_of(name)}")

    def wait_for_an_end(self, names: Collection[str]) -> str:
        """Wait until one of these processes ends; return its name."""
        while True:
            for name, process in self._running:
                if name in names and process.poll() is not None:
                    return name
            time.sleep(0.5)

    def _last_lines(self, name: str) -> str:
        return "\n".join(self.log_of(name).read_text(errors="replace").splitlines()[-5:])


def end(name: str, process: subprocess.Popen[bytes], *, timeout: float = 15.0) -> None:
    """Terminate a process; kill it if it has not ended after `timeout` seconds."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        print(f"the {name} does not stop; killing it", file=sys.stderr)
        process.kill()
        process.wait()


def end_with_parent() -> None:
    """Runs in the child before its program: ask the kernel to end it when its parent ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
