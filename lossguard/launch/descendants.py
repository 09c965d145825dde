"""The processes below another one, as /proc shows them: torchrun's workers have sessions of their own."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was seen; another one with the same pid started at another time."""

    pid: int
    started: str
    """Clock ticks since boot, as the kernel says it."""

    def lives(self) -> bool:
        """Whether it is there; one that has ended but is not waited for is not."""
        found = _read(self.pid)
        return found is not None and found[1] == self.started

    def kill(self) -> None:
        """Send SIGKILL, if it still is this process."""
        if self.lives():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def descendants(pid: int) -> list[Process]:
    """The processes below `pid`, parents before their children."""
    children: dict[int, list[Process]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        if (found := _read(int(path.name))) is not None:
            children.setdefault(found[0], []).append(Process(int(path.name), found[1]))
    below: list[Process] = []
    nearest = [pid]
    while nearest:
        level = [each for parent in nearest for each in children.get(parent, [])]
        below += level
        nearest = [each.pid for each in level]
    return below


def kill_all(processes: Iterable[Process]) -> None:
    """Kill them in this order: a parent first, so that it does not start its children again."""
    for each in processes:
        each.kill()


def _read(pid: int) -> tuple[int, str] | None:
    """(parent, start) of a process; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])
