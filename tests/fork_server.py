"""Processes that start warm: `python -m MODULE ..`, forked from a process that has imported the module already.

    python -m tests.fork_server MODULE    # as `started` starts it: requests come through its standard input, a socket

A collector or a dashboard that starts cold takes 1.5 s of CPU time for its imports, a trainer 3 s, and the tests start
dozens. What they do, and how they end, is the same. That the commands start cold is tested by tests/demo/test_main.py,
tests/dashboard/test_main.py, tests/monitor/cli/test_serve.py and tests/trainer/test_cli.py.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from lossguard_server.processes import Processes, end_with_parent

IMPORTS = {
    "monitor": ("monitor.app", "monitor.cli.serve", "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl"),
    "trainer": ("trainer.cli", "torch._dynamo"),
    # Not `dashboard.server`, which reads the environment when it is imported.
    "dashboard": ("dashboard.views.run.curves", "dashboard.views.run.parts"),
    "tests.ranks.scenarios": ("tests.ranks.gating", "tests.ranks.saving", "tests.ranks.token_means", "torch._dynamo"),
    "examples.analysis": ("pandas", "db.frames", "plotly.graph_objects"),
}
"""What each module loads when it runs."""
ROOT = Path(__file__).parents[1]


def started(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    log: IO[bytes],
    errors: IO[bytes] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """`python -m MODULE ARGUMENTS` as a process, whose output goes to `log`, and its standard error to `errors`."""
    if sys.platform != "linux":
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, env=env, cwd=cwd, stdout=log, stderr=errors or log)
    request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
    return Forked(_server_of(module), module, request, log.fileno(), (errors or log).fileno())


def run(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` returns for `python -m MODULE ARGUMENTS`, with its output."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as errors:
        process = started(module, *arguments, env=env, log=log, errors=errors, cwd=cwd)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()  # else one that takes too long would remain
        log.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(process.args, code, log.read().decode(), errors.read().decode())


class WarmProcesses(Processes):
    """Starts those of our commands warm that take long to start."""

    def start(
        self, name: str, *arguments: str, environment: Mapping[str, str], show: bool = False
    ) -> subprocess.Popen[bytes]:
        if show or arguments[0] != "-m" or arguments[1] not in IMPORTS:
            return super().start(name, *arguments, environment=environment, show=show)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log_of(name).open("wb") as log:
            process = started(*arguments[1:], env=os.environ | environment, log=log)
        self._running.append((name, process))
        return process


@functools.cache
def _server_of(module: str) -> socket.socket:
    """The socket of the server that forks the processes of `module`, and ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    atexit.register(ours.close)
    with its:
        subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", module],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=its.fileno(),
            start_new_session=True,  # Ctrl-C reaches only us; it ends when the socket is closed
        ).returncode = 0  # nobody waits for it
    return ours


class Forked(subprocess.Popen[bytes]):
    """A process that its server forks and waits for; the server writes the exit code into a pipe."""

    def __init__(self, server: socket.socket, module: str, request: Mapping[str, Any], *outputs: int) -> None:
        self.args, self.returncode = [module, *request["arguments"]], None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = False  # not of this process
        read, write = os.pipe()
        self._exit_code = os.fdopen(read, "rb")
        socket.send_fds(server, [json.dumps(request).encode()], [write, *outputs])
        os.close(write)
        self.pid = int(server.recv(100))

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._exit_code], [], [], timeout)[0]:
            with self._exit_code:
                self.returncode = int(self._exit_code.read() or -signal.SIGKILL)
        return self.returncode


def _serve(channel: socket.socket) -> list[str] | None:
    """Fork for each request. Returns the arguments in each child, and None in the server, when nobody asks any more."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([channel.fileno(), *running], [], [])[0]:
            if ready in running:
                _report_end(ready, *running.pop(ready))
                continue
            message, fds, _, _ = socket.recv_fds(channel, 1 << 20, 3)
            if not message:
                return None
            exit_code, *outputs = fds
            pid = os.fork()
            if pid == 0:
                for other in (channel.detach(), exit_code, *running, *(pipe for _, pipe in running.values())):
                    os.close(other)
                return _become(json.loads(message), outputs)
            for output in outputs:
                os.close(output)
            running[os.pidfd_open(pid)] = (pid, exit_code)
            channel.send(str(pid).encode())


def _report_end(pidfd: int, pid: int, exit_code: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.write(exit_code, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(exit_code)
    os.close(pidfd)


def _become(request: dict[str, Any], outputs: list[int]) -> list[str]:
    """Be the process that was asked for, up to its first line."""
    end_with_parent()
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ |= request["env"]
    arguments: list[str] = request["arguments"]
    return arguments


def _main(module: str) -> None:
    for name in IMPORTS[module]:
        importlib.import_module(name)
    arguments = _serve(socket.socket(fileno=os.dup(0)))
    if arguments is not None:
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1])
