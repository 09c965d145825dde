"""The command as a child process: started with the terminal as it is, or found again after its launcher was killed."""

import errno
import json
import os
import signal
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lossguard.errors import LossguardError
from lossguard.private_files import open_private

CHILD_FILE = "child.json"
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that cannot be started, as a shell has them."""


class CommandNotStarted(LossguardError):
    """The command does not exist or cannot be executed."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code
        """Exit code of the launcher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A process that runs the command."""

    pid: int
    started: str
    """When it started, in the kernel's own form: another process with the same pid has another one."""
    command: list[str]
    journal: Path
    is_ours: bool = True
    """False: an earlier launcher started it, so its exit code cannot be known."""

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], journal: Path, mask: Iterable[int] = ()
    ) -> Self:
        """Start `command` in the launcher's process group, with its terminal and files; `mask`: signals that are
        blocked in it. Raises CommandNotStarted."""
        try:
            pid = os.posix_spawnp(
                command[0], list(command), environment, setsigmask=mask, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
            )
        except (OSError, ValueError) as problem:
            raise _not_started(command[0], problem) from None
        return cls(pid=pid, started=_start_of(pid), command=list(command), journal=journal)

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """The child of an earlier launcher, if it lives on this machine."""
        try:
            found = json.loads((folder / CHILD_FILE).read_bytes())
            child = cls(
                pid=int(found["pid"]),
                started=str(found["started"]),
                command=[str(each) for each in found["command"]],
                journal=Path(found["journal"]),
                is_ours=False,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return child if found.get("host") == socket.gethostname() and child.lives() else None

    def note(self, folder: Path) -> None:
        """Leave in `folder` what the next launcher needs to find the child. Raises OSError."""
        facts = asdict(self) | {"journal": str(self.journal), "host": socket.gethostname()}
        with open(folder / CHILD_FILE, "w", opener=open_private) as file:
            json.dump(facts, file)

    def ended(self) -> int | None:
        """The exit code, negative for a signal, once the child of this process has ended; None while it lives."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def lives(self) -> bool:
        """Whether the process is there; one that has ended but is not waited for is not."""
        return bool(self.started) and _start_of(self.pid) == self.started

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if not self.is_ours and not self.lives():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return


def _start_of(pid: int) -> str:
    """The 22nd field of /proc/PID/stat, clock ticks since boot; empty for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _not_started(name: str, problem: Exception) -> CommandNotStarted:
    if isinstance(problem, OSError) and problem.errno == errno.ENOENT:
        return CommandNotStarted(f"{name}: there is no such command", NOT_FOUND)
    reason = problem.strerror if isinstance(problem, OSError) else str(problem)
    return CommandNotStarted(f"{name} cannot be executed ({reason})", NOT_EXECUTABLE)
