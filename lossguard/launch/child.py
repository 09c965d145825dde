"""The command as a child process: started or found again, stopped with its descendants, and the stacks of all."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lossguard.launch.hooks import JOURNAL_VARIABLE
from lossguard.spool.folders import open_private
from lossguard.spool.writer import process_fields
from lossguard.vocabulary.errors import LossguardError

# Descendants, as /proc shows them: torchrun's workers have sessions of their own.

SET_CHILD_SUBREAPER = 36
"""An option of prctl(2)."""
GIVE_UP_SECONDS = 5.0
"""For which processes that SIGKILL has not ended are waited for: one that waits for a disk ends later."""
ENDED = ("Z", "X")
"""States of a process that has ended."""
LOOK_SECONDS = 0.05
"""Pause between two looks which processes are left."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was seen; another one with the same pid started at another time."""

    pid: int
    started: str
    """Clock ticks since boot, as the kernel says it; empty if it has ended."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this number now."""
        fields = process_fields(pid)
        return cls(pid, fields[19] if fields and fields[0] not in ENDED else "")

    def lives(self) -> bool:
        """Return True if it is there; one that has ended but is not waited for is not."""
        return self.started != "" and Process.of(self.pid).started == self.started

    def send(self, number: int) -> None:
        """Send a signal, if it still is this process."""
        if self.lives():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def descendants(pid: int) -> list[Process]:
    """The processes below `pid`, parents before their children."""
    children: dict[int, list[Process]] = {}
    for each, parent, state in _all():
        if state not in ENDED:
            children.setdefault(parent, []).append(each)
    below: list[Process] = []
    nearest = [pid]
    while nearest:
        level = [each for parent in nearest for each in children.get(parent, [])]
        below += level
        nearest = [each.pid for each in level]
    return below


_others: list[Process] | None = None
"""Children of this process that are none of the command; None: it adopts no orphans."""


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be, in this block, the parent of all processes below this one whose own parent has ended, in any session."""
    global _others
    import ctypes

    libc = ctypes.CDLL(None)
    _others = descendants(os.getpid())
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        _others = None


def zombies() -> set[Process]:
    """Return the children of this process that have ended and that nobody has waited for."""
    return {each for each, parent, state in _all() if state == "Z" and parent == os.getpid()}


def kill_all(processes: Iterable[Process]) -> None:
    """Kill them in this order: a parent first, so that it does not start its children again."""
    for each in processes:
        each.send(signal.SIGKILL)


def _all() -> Iterator[tuple[Process, int, str]]:
    """The processes of this machine, each with its parent and its state."""
    for path in Path("/proc").glob("[0-9]*"):
        if fields := process_fields(int(path.name)):
            yield Process(int(path.name), fields[19]), int(fields[1]), fields[0]


def _has_journal(pid: int, place: bytes) -> bool:
    """Return True if the process has a journal in this folder in its environment."""
    try:
        return place in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


# The child: started with the terminal as it is, or found again after its launcher was killed.

CHILD_FILE = "child.json"
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that cannot be started, as a shell has them."""


class CommandNotStarted(LossguardError):
    """The command does not exist or cannot be executed."""

    def __init__(self, name: str, problem: OSError | ValueError) -> None:
        self.code = NOT_FOUND if isinstance(problem, FileNotFoundError) else NOT_EXECUTABLE
        """Exit code of the launcher."""
        reason = problem.strerror if isinstance(problem, OSError) else problem
        is_there = self.code == NOT_EXECUTABLE
        super().__init__(f"{name} cannot be executed ({reason})" if is_there else f"{name}: there is no such command")


@dataclass(frozen=True, kw_only=True, slots=True)
class Child(Process):
    """A process that runs the command."""

    command: list[str]
    journal: Path
    relay: Process | None = None
    """The process that passes on what it prints, if there is one."""
    is_ours: bool = True
    """False: an earlier launcher started it, so its exit code cannot be known."""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        journal: Path,
        mask: Iterable[int] = (),
        *,
        outputs: Mapping[int, int] | None = None,
        relay: Process | None = None,
    ) -> Self:
        """Start `command` in the launcher's process group, with its terminal and files; `mask`: signals that are
        blocked in it; `outputs`: its file descriptors that are ours of another number. Raises CommandNotStarted."""
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, its) for its, ours in (outputs or {}).items()],
                setsigmask=mask,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except (OSError, ValueError) as problem:
            raise CommandNotStarted(command[0], problem) from None
        return cls(pid, Process.of(pid).started, command=list(command), journal=journal, relay=relay)

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """The child of an earlier launcher, if it lives on this machine."""
        try:
            found = json.loads((folder / CHILD_FILE).read_bytes())
            child = cls(
                int(found["pid"]),
                str(found["started"]),
                command=[str(each) for each in found["command"]],
                journal=Path(found["journal"]),
                relay=None if found.get("relay") is None else Process(**found["relay"]),
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

    def processes(self) -> list[Process]:
        """Processes that live and were started by the command: below it, left behind to this process, or, of an earlier
        child or launcher, with a journal of this launch in their environment. Neither the command nor the relay."""
        below = descendants(self.pid)
        if _others is not None:
            others = {each for other in _others for each in (other, *descendants(other.pid))}
            below += [each for each in descendants(os.getpid()) if each not in others]
        place = f"{JOURNAL_VARIABLE}={self.journal.parent}{os.sep}".encode()
        below += [each for each, _, state in _all() if state not in ENDED and _has_journal(each.pid, place)]
        known = {self.pid, os.getpid(), None if self.relay is None else self.relay.pid}
        return [each for each in dict.fromkeys(below) if each.pid not in known]

    def send(self, number: int) -> None:
        """Send it a signal, if it has not ended. One of ours keeps its number until it is waited for."""
        if self.is_ours or self.lives():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def is_in_our_group(self) -> bool:
        """Return True if the terminal sends it what it sends to us. One that was taken over may have another group."""
        try:
            return os.getpgid(self.pid) == os.getpgrp()
        except ProcessLookupError:
            return True

    def ignores(self, number: int) -> bool:
        """Return True if a signal has no effect on the command."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(errors="replace")
        except OSError:
            return False
        ignored = re.search(r"^SigIgn:\s*([0-9a-f]+)", status, re.MULTILINE)
        return ignored is not None and bool(int(ignored[1], 16) >> number - 1 & 1)


# Stopping the command with everything below it: a signal, a time of grace, then SIGKILL.


class Stop:
    """One child that is being stopped. `advance` is called again and again until it has ended."""

    def __init__(self, child: Child, now: float, *, grace: float) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL; 0: SIGKILL at once. `now`: monotonic seconds."""
        self._child, self._kill_at = child, now + grace
        self._below: dict[Process, None] = {}  # what was seen below it, parents first
        self.advance(now)
        if grace > 0:
            child.send(signal.SIGTERM)

    def advance(self, now: float) -> None:
        """Look what is below the child now; kill all of it once the time of grace is over."""
        self._below.update(dict.fromkeys(self._child.processes()))
        if now >= self._kill_at:
            self._child.send(signal.SIGKILL)
            kill_all(self._below)

    def finish(self) -> None:
        """The child has ended: what it has left behind is killed, or it would hold the devices and the ports."""
        kill_all(self._below)
        end_all(self._child, grace=0.0)


def end_all(child: Child, *, grace: float, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """The child has ended: end all processes that it has left behind, by SIGTERM, and by SIGKILL after `grace` seconds.

    They may start others meanwhile. `is_urgent`: whether somebody asks once more, so that the grace is over.
    """
    kill_at = time.monotonic() + grace
    give_up_at = math.inf  # however long we ourselves are suspended, they are killed once at least
    asked: set[Process] = set()
    while (left := child.processes()) and (now := time.monotonic()) < give_up_at:
        if now >= kill_at or is_urgent():
            kill_at, give_up_at = min(kill_at, now), min(give_up_at, now + GIVE_UP_SECONDS)
            kill_all(left)
        for each in set(left) - asked:
            each.send(signal.SIGTERM)
        asked.update(left)
        if now < kill_at:
            time.sleep(LOOK_SECONDS)


# Stacks of all processes of a command that hangs, taken with py-spy where it is installed.

SECONDS_EACH = 20.0


def write_stacks(pids: Iterable[int], file: Path) -> str:
    """Write what `py-spy dump` shows of each process to `file`. Returns where the stacks are, as a clause."""
    beside = Path(sys.executable).with_name("py-spy")
    program = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if program is None:
        return "pip install py-spy to see where"
    try:
        with file.open("w") as output:
            for pid in pids:
                output.write(f"process {pid}\n{_dump(program, pid)}\n")
                output.flush()
    except OSError as problem:
        return f"its stacks could not be written ({problem.strerror})"
    return f"its stacks are in {file}"


def _dump(program: str, pid: int) -> str:
    command = [program, "dump", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_EACH, check=False)
    except (OSError, subprocess.SubprocessError) as problem:
        return f"py-spy failed: {problem}"
    return done.stdout or f"py-spy: {done.stderr.strip()}"
