"""The launcher: the command as its child, signals passed through, and the child's end as its own."""

import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from lossguard.launch.child import CHILD_FILE, Child, CommandNotStarted, Process, adopting_orphans, end_all, zombies
from lossguard.launch.hooks import JOURNAL_VARIABLE, LAUNCHER_VARIABLE
from lossguard.launch.printing import Printing
from lossguard.launch.recorder import JOURNAL, Recorder
from lossguard.run.run import Run
from lossguard.spool.spool import new_session
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.states import RunState

STOPPING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
"""Signals that ask the run to stop."""
PASSED = STOPPING | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
"""Signals that are passed on to the child. What the terminal sends (Ctrl-C) reaches it without our help, unless it was
taken over and has another process group."""
POLL_SECONDS = 0.2
"""Pause between two looks of the supervisor; the end of the child and signals are noticed at once."""
REAP_SECONDS = 60.0
"""Pause between two looks for adopted processes that have ended."""
RELAY_SECONDS = 2.0
"""Seconds to wait for the relay of a child that an earlier launcher started, when the child has ended."""
DELIVERY_SECONDS = 10.0
"""Time to deliver the rest when the child has ended; what is left then stays in the spool."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """The end of one run of the child."""

    code: int | None
    """Its exit code, negative for a signal; None for a child of an earlier launcher."""
    asked_to_stop: bool = False
    """True if somebody else sent a signal that asks the run to stop."""
    ended_cleanly: bool = False
    """True if its interpreter has come to its end without an uncaught exception, as far as the hooks saw."""

    @property
    def state(self) -> RunState:
        """The state of a run that ends like this."""
        if self.asked_to_stop or (self.code is not None and -self.code in STOPPING):
            return RunState.INTERRUPTED
        return RunState.FINISHED if self.is_fine else RunState.FAILED

    @property
    def is_fine(self) -> bool:
        """True if it has come to its end without an error, as far as is known."""
        return self.ended_cleanly if self.code is None else self.code == 0

    def __str__(self) -> str:
        if self.code is None:
            return "an unknown exit code"
        return f"exit code {self.code}" if self.code >= 0 else f"signal {-self.code}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Restart:
    """The child is started again."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to that of the launcher."""
    opens_segment: bool = True
    """True if the first row of the new child opens a segment (`resume`); False: the supervisor has opened one."""


class Supervisor:
    """Watches the child and decides what follows its end. This class does neither: one run of the child, as it is."""

    is_interrupted = False
    """True if a signal that asks the run to stop came while no child was there."""

    @property
    def is_stopping(self) -> bool:
        """True while it stops the child: then it is called until the child has ended, whoever else asks for that."""
        return False

    def first(self, begin_run: Callable[[], Run | None]) -> Restart | None:
        """Return how the command is started first; None: as it is. `begin_run` returns the run, if it is known."""
        return None

    def batch_of(self, step: int) -> int | None:
        """The batch of a step that the command logs; None: the same number, as far as is known."""
        return None

    def watch(self, child: Child, run: Run | None) -> None:
        """Called every POLL_SECONDS while the child lives; `run`: once something was recorded. It may stop the child
        (`child.send`), and must return soon: meanwhile no signal is passed on."""

    def give_up(self, run: Run | None, why: str) -> None:
        """Called when `watch` has raised: carry out no order from now on."""

    def after(self, end: ChildEnd, run: Run | None) -> Restart | None:
        """Called when a child has ended and everything that it logged is recorded; None: the run is over."""
        return None


class Launcher:
    """Runs a command to its end. `run` is the main thread's whole work; the recorder is a thread of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        recorder: Recorder,
        environment: Mapping[str, str],
        supervisor: Supervisor | None = None,
        first_line: str = "",
        reads_text: bool = False,
        pattern: str | None = None,
        grace: float = 30.0,
    ) -> None:
        """`folder`: of the launch, which this process has locked; `environment`: of the child; `first_line`: said once
        the child runs; `reads_text`: what the command prints is read, with the user's `pattern` or those of known
        trainers; `grace`: seconds from SIGTERM to SIGKILL for a command that ignores it, and for what it leaves behind.
        """
        self._command = command
        self._folder = folder
        self._recorder = recorder
        self._environment = environment
        self._supervisor = supervisor or Supervisor()
        self._reads_text, self._pattern = reads_text, pattern
        self._printing: Printing | None = None  # of the present child
        recorder.batch_of = self._supervisor.batch_of
        self._first_line = first_line
        recorder.leave_text = self._leave_text
        self._asked_to_stop = False
        self._grace, self._kill_at = grace, math.inf
        self._zombies: set[Process] = set()  # at the last look
        self._reap_at = 0.0
        self._log_once = LogOnce()

    def run(self) -> ChildEnd:
        """Run the command, or take over the child of an earlier launcher, until it has ended and is not started again.

        Raises CommandNotStarted.
        """
        # One that is ignored, as SIGHUP is under nohup, is not blocked: it never comes, and the command ignores it too.
        heard = {each for each in PASSED if signal.getsignal(each) is not signal.SIG_IGN}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, heard | {signal.SIGCHLD})  # before there is another thread
        try:
            with adopting_orphans():
                return self._run(mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _run(self, mask: Iterable[int]) -> ChildEnd:
        child = self._take_over()
        if child is None:
            first = self._supervisor.first(self._recorder.begin_at_once)
            child = self._start(first or Restart(command=self._command), mask)
        if self._first_line:
            self._log_once.warn(self._first_line)
        self._recorder.start()
        while True:
            end = self._attend(child)
            self._recorder.drain()
            following = self._supervisor.after(end, self._recorder.recorded)
            self._asked_to_stop |= self._supervisor.is_interrupted
            if following is not None or self._asked_to_stop:
                end_all(child, grace=self._grace, is_urgent=self._is_asked_again)
            if following is None or self._asked_to_stop:
                break
            try:
                child = self._start(following, mask)
            except CommandNotStarted:  # it is there no longer
                self._recorder.close(RunState.FAILED, DELIVERY_SECONDS)
                raise
        end = replace(end, asked_to_stop=self._asked_to_stop)
        (self._folder / CHILD_FILE).unlink(missing_ok=True)
        self._recorder.close(end.state, DELIVERY_SECONDS)
        return end

    def _take_over(self) -> Child | None:
        """The child of an earlier launcher of this run, if it lives; and what such launchers have not recorded."""
        child = Child.find(self._folder)
        for journal in sorted(self._folder.glob(f"*{JOURNAL}")):
            if child is None or journal != child.journal:
                self._recorder.follow(journal)
        if child is not None:
            self._log_once.warn(
                f"process {child.pid}, which an earlier launcher started, is still running and is recorded"
            )
            self._recorder.follow(child.journal, opens_segment=False)
        return child

    def _start(self, what: Restart, mask: Iterable[int]) -> Child:
        journal = self._folder / f"{new_session(self._folder)}{JOURNAL}"
        ours = {JOURNAL_VARIABLE: str(journal), LAUNCHER_VARIABLE: str(os.getpid())}
        environment = {**self._environment, **what.environment, **ours}
        printing = self._printing = Printing.begin(journal, self._pattern) if self._reads_text else None
        outputs, relay = ({}, None) if printing is None else (printing.outputs, printing.process)
        try:
            child = Child.start(what.command, environment, journal, mask, outputs=outputs, relay=relay)
        finally:
            for each in set(outputs.values()):  # our ends: the child has them, or was not started
                os.close(each)
        try:
            child.note(self._folder)
        except OSError as problem:
            self._log_once.warn(f"{self._folder} cannot be written ({problem.strerror})")
        self._recorder.follow(journal, opens_segment=what.opens_segment, is_left=False)
        return child

    def _watch(self, child: Child) -> None:
        """The child is not left alone because the supervisor has failed."""
        try:
            self._supervisor.watch(child, self._recorder.recorded)
        except Exception as problem:
            why = f"{type(problem).__name__}: {problem}"
            self._log_once.warn_once("watch", f"the command is not supervised: {why}")
            self._supervisor.give_up(self._recorder.recorded, f"the supervisor of the command has failed ({why})")

    def _attend(self, child: Child) -> ChildEnd:
        """Pass signals on until the child has ended. This is one run of the child."""
        while True:
            code = child.ended() if child.is_ours else None
            if code is not None or not (child.is_ours or child.lives()):
                self._await_relay(child)
                self._recorder.drain()
                ended = self._recorder.ended
                return ChildEnd(code, self._asked_to_stop, ended is not None and ended["ended"] is None)
            if not self._asked_to_stop or self._supervisor.is_stopping:  # a last checkpoint may take long: no hang
                self._watch(child)
            if time.monotonic() >= self._kill_at and child.ignores(signal.SIGTERM):
                child.send(signal.SIGKILL)
            received = signal.sigtimedwait(PASSED | {signal.SIGCHLD}, POLL_SECONDS)
            self._reap_orphans(child)
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._asked_to_stop |= received.si_signo in STOPPING
                if received.si_signo == signal.SIGTERM:
                    self._kill_at = min(self._kill_at, time.monotonic() + self._grace)
                if received.si_code <= 0 or not child.is_in_our_group():  # else the terminal sends to the child, too
                    child.send(received.si_signo)

    def _reap_orphans(self, child: Child) -> None:
        """Wait for adopted processes that have ended. Children of our own are waited for by whoever started them."""
        if time.monotonic() >= self._reap_at:
            self._reap_at = time.monotonic() + REAP_SECONDS
            found = {each for each in zombies() if each.pid != child.pid}
            for each in found & self._zombies:
                with suppress(ChildProcessError):
                    os.waitpid(each.pid, os.WNOHANG)
            self._zombies = found

    def _await_relay(self, child: Child) -> None:
        """The child has ended: wait until what it has printed is passed on and read."""
        if self._printing is not None:
            self._printing.finish(self._is_asked_again)
            self._printing = None
        elif child.relay is not None:  # of an earlier launcher
            until = time.monotonic() + RELAY_SECONDS
            while child.relay.lives() and time.monotonic() < until:
                time.sleep(0.01)

    def _is_asked_again(self) -> bool:
        """Return True if a signal has come that asks the run to stop, while no child was there."""
        is_asked = signal.sigtimedwait(STOPPING, 0) is not None
        self._asked_to_stop |= is_asked
        return is_asked

    def _leave_text(self) -> None:
        if (printing := self._printing) is not None:
            printing.stop_reading()


def die_like(end: ChildEnd) -> NoReturn:
    """End this process as the child ended: with its exit code, or by the same signal."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # closed at the other end
            if stream is not None:  # closed when this process began
                stream.flush()
    if end.code is None:
        os._exit(0 if end.ended_cleanly else 1)
    if end.code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left its own core, if any
        if -end.code != signal.SIGKILL:
            signal.signal(-end.code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-end.code})
        os.kill(os.getpid(), -end.code)
        time.sleep(1.0)  # the signal is on its way
    os._exit(end.code if end.code >= 0 else 128 - end.code)
