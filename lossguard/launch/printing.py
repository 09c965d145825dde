"""The launcher's side of the relay (`relay.py`): start it, and wait for it."""

import fcntl
import logging
import os
import select
import signal
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lossguard.launch import relay
from lossguard.launch.child import Process

READY_SECONDS = 20.0
"""Within which a relay must pass on; else the command runs without one."""
POLL_SECONDS = 0.05
"""Pause between two looks whether to wait on."""
STDOUT, STDERR = 1, 2

logger = logging.getLogger("lossguard")


@dataclass(frozen=True, slots=True)
class Printing:
    """The output of one child on its way through a relay."""

    process: Process
    """The relay."""
    outputs: dict[int, int]
    """The child's file descriptors, stdout and stderr, and ours that take their place."""
    _control: socket.socket

    @classmethod
    def begin(cls, journal: Path, pattern: str | None) -> Self | None:
        """Start a relay that writes what it reads to `journal`; None, and a warning, if that is not possible."""
        try:
            return cls._begin(journal, pattern)
        except (OSError, termios.error) as problem:
            logger.warning("what the command prints is not read: %s", problem)
            return None

    @classmethod
    def _begin(cls, journal: Path, pattern: str | None) -> Self:
        with ExitStack() as kept:
            control, relay_end = socket.socketpair()
            kept.callback(control.close)
            with ExitStack() as inherited:
                inherited.callback(relay_end.close)
                pairs, outputs = _connected(kept, inherited)
                for each in (relay_end.fileno(), *(source for source, _ in pairs)):
                    os.set_inheritable(each, True)
                arguments = relay.arguments_of(pairs, control=relay_end.fileno(), journal=str(journal), pattern=pattern)
                command = [sys.executable, "-I", "-S", relay.__file__, *arguments]
                pid = os.posix_spawn(command[0], command, os.environ)  # with the launcher's blocked signals
            if _heard(control, READY_SECONDS) != relay.READY:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise ChildProcessError(f"{sys.executable} cannot run {relay.__file__}")
            kept.pop_all()
            return cls(Process.of(pid), outputs, control)

    def stop_reading(self) -> None:
        """The tracker of the command is recorded: its lines are only passed on from now on."""
        self._tell(relay.STOP_READING)

    def finish(self, must_stop: Callable[[], bool]) -> None:
        """The child has ended: wait until all that it has printed is passed on and read, or until `must_stop`."""
        self._tell(relay.COMMAND_ENDED)
        heard = None
        while heard not in (relay.DONE, b"") and not must_stop():
            heard = _heard(self._control, POLL_SECONDS)
        self._control.close()
        with suppress(ChildProcessError):
            os.waitpid(self.process.pid, 0 if heard == b"" else os.WNOHANG)  # it may go on for a process of the child

    def _tell(self, what: bytes) -> None:
        with suppress(OSError):  # it has ended
            self._control.send(what)


def _connected(kept: ExitStack, inherited: ExitStack) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Return (pairs of a relay's source and target, the ends of the child by its own numbers).

    Outputs that go to one place go there through one pipe: their order stays. `kept` closes the ends of the child,
    `inherited` the sources.
    """
    try:
        is_one_place = os.path.sameopenfile(STDOUT, STDERR)
    except OSError:
        raise OSError("stdout or stderr is closed") from None
    pairs: list[tuple[int, int]] = []
    outputs: dict[int, int] = {}
    for number in (STDOUT,) if is_one_place else (STDOUT, STDERR):
        source, end = _terminal_like(number) if os.isatty(number) else os.pipe()
        kept.callback(os.close, end)
        inherited.callback(os.close, source)
        pairs.append((source, number))
        outputs[number] = end
    outputs.setdefault(STDERR, outputs[STDOUT])
    return pairs, outputs


def _terminal_like(terminal: int) -> tuple[int, int]:
    """Return both ends of a pseudo-terminal that looks like `terminal` to the child, and changes no byte."""
    source, end = os.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST  # the real one does that
    termios.tcsetattr(end, termios.TCSANOW, attributes)
    fcntl.ioctl(source, termios.TIOCSWINSZ, fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return source, end


def _heard(control: socket.socket, seconds: float) -> bytes | None:
    """Return what the relay says within `seconds`; nothing if it has ended, None if it is silent."""
    if not select.select([control], [], [], seconds)[0]:
        return None
    try:
        return control.recv(1)
    except ConnectionResetError:  # it has not read all of what it was sent
        return b""
