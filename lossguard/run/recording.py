"""A run that is recorded: it is registered with what it can do, its sender delivers it, and it ends."""

import atexit
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossguard.client.client import Client
from lossguard.delivery.hardware import HardwareSampler
from lossguard.delivery.sender import HEARTBEAT, Sender
from lossguard.run.run import NO_STEPS, watching
from lossguard.run.settings import Settings
from lossguard.run.spooled import SpooledRun, never_raises
from lossguard.spool.folders import FolderLock
from lossguard.spool.writer import writer_of
from lossguard.vocabulary.protocol import (
    ANSWERS_PREFLIGHT,
    CAN_APPLY,
    CAN_ROLL_BACK,
    CAN_SCALE_LR,
    CANNOT_ROLL_BACK,
    CANNOT_SAVE,
    CANNOT_SKIP,
    HAS_LIMITS,
    MAX_SHORT_TEXT,
    checked_json,
    checked_step,
    plain_json,
    storable,
)
from lossguard.vocabulary.secrets import mask_json
from lossguard.vocabulary.states import Refusal, RunState


class RecordingRun(SpooledRun):
    """The run that `lossguard.init` returns unless the mode is off."""

    def __init__(
        self,
        registration: dict[str, Any],
        directory: Path,
        settings: Settings,
        *,
        client: Client | None = None,
        lock: FolderLock | None = None,
        session: str | None = None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        """`registration` is the body of POST /runs; without a `client` nothing is delivered. `lock`: of `directory`;
        `finish` releases it. `session`: see SpooledRun; `heartbeat`: see Sender. Raises OSError.
        """
        super().__init__(registration["id"], directory, settings, session=session)
        self._lock = lock
        self.is_written = True
        """True if all lines stand in the spool; false after `finish` where the disk was full, for example."""
        self._url = None if client is None else client.url
        self._registration = registration
        self._is_planned = registration.get("total_steps") is not None
        self._sender: Sender | None = None
        writer = writer_of(directory, self._session)
        self.describe()
        if client is not None:
            sampler, interval = None, settings.hardware_interval
            if interval is not None:
                sampler = HardwareSampler(directory, interval=interval, newest_step=lambda: self.newest_step)
            self._sender = Sender(
                *(directory, client, self.log_once, writer),
                current=self._spool.path,
                inbox=self.inbox,
                appended=self._writer.appended,
                heartbeat=heartbeat,
                keep=settings.keep,
                hardware=sampler,
            )
            self._sender.start()
        _open_runs.add(self)
        atexit.register(self._at_exit)
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            from multiprocessing.util import Finalize

            # Such a process forgets its exception before `atexit`, or, as a fork, ends without it.
            Finalize(None, self._at_exit, exitpriority=0)

    @property
    def planned_steps(self) -> int | None:
        steps: int | None = self._registration.get("total_steps")
        return steps

    @never_raises
    def announce(self, tell: Callable[[str], None], plan: Callable[[], str] | None = None) -> None:
        never = "" if self._url is None else "it is never rolled back"
        tell(watching(self.id, self._url, never if plan is None else plan()))

    @never_raises
    def add_config(self, config: Mapping[str, Any], *, total_steps: int | None = None) -> None:
        added = {"config": self._registration["config"] | mask_json(plain_json(config))}
        checked_json(added["config"])
        if total_steps is not None and not self._is_planned:
            added["total_steps"] = checked_step(total_steps)
        if self._registration != self._registration | added:
            self.describe(**added)

    @never_raises
    def describe(self, **fields: Any) -> None:
        """Register the run again with other values of these fields, such as name and config."""
        self._registration = {**self._registration, **fields}
        with self._writer.lock:
            self._writer.put({"run": self._registration})

    @never_raises
    def can_roll_back(self) -> None:
        self.inbox.refuse_with(None)
        self._set_capabilities([CAN_ROLL_BACK], ended=(CANNOT_ROLL_BACK,))

    @never_raises
    def cannot_roll_back(self, why: str) -> None:
        why = storable(why)[: MAX_SHORT_TEXT - len(CANNOT_ROLL_BACK)]
        self._set_capabilities([CANNOT_ROLL_BACK + why], ended=(CANNOT_ROLL_BACK, CAN_ROLL_BACK, ANSWERS_PREFLIGHT))
        self.inbox.refuse_with(lambda order: self.refuse(order, why, Refusal.OBSERVES))

    @never_raises
    def cannot_save(self, why: str) -> None:
        said = [CANNOT_SAVE + storable(why)[: MAX_SHORT_TEXT - len(CANNOT_SAVE)]] if why else []
        self._set_capabilities(said, ended=(CANNOT_SAVE,))

    @never_raises
    def cannot_skip(self) -> None:
        self._set_capabilities([CANNOT_SKIP])

    @never_raises
    def can_apply(self, remedy: str) -> None:
        self._set_capabilities([CAN_APPLY + remedy])

    @never_raises
    def can_scale_lr(self) -> None:
        self._set_capabilities([CAN_SCALE_LR])

    @never_raises
    def has_limits(self, limits: str) -> None:
        self._set_capabilities([HAS_LIMITS + limits] * bool(limits), ended=(HAS_LIMITS,))

    @never_raises
    def answers_questions(self) -> None:
        self._set_capabilities([ANSWERS_PREFLIGHT])

    def _set_capabilities(self, added: Sequence[str], ended: tuple[str, ...] = ()) -> None:
        """Announce the capabilities `added`, and that those which begin with one of `ended` have ended."""
        known = self._registration["capabilities"]
        kept = [each for each in known if each in added or not each.startswith(ended)]
        changed = [*kept, *(each for each in added if each not in kept)]
        if changed != known:
            self.describe(capabilities=changed)

    @never_raises
    def finish(self, state: str | None = None, timeout: float = 30.0, at: float | None = None) -> None:
        final = self._final_state(state)
        if final is RunState.FINISHED and not self._has_steps:
            mend = "call run.log in the loop, or attach the guard before train() or fit()"
            self.log_once.warn_once(NO_STEPS, f"run {self.id} ends with 0 steps: {mend}")
        with self._writer.lock:
            self._writer.put({"finish": final, "time": time.time() if at is None else at})
        self.is_written = self._close(timeout)
        if not self.is_written:
            self.log_once.warn_once(
                "close",
                f"not every step was written to {self.directory}: the disk is full, or it or a device was too slow",
            )

    @never_raises
    def hand_over(self, timeout: float = 1.0) -> None:
        """Release the folder without ending the run: another process goes on with it, and delivers what is left."""
        self._close(timeout)

    def _close(self, timeout: float) -> bool:
        """Write and deliver the rest, and release the folder. Returns whether every line is in the spool."""
        atexit.unregister(self._at_exit)
        deadline = time.monotonic() + timeout
        try:
            return self._writer.close(timeout)
        finally:
            self.inert = True
            if self._sender is not None:
                self._sender.close(max(0.0, deadline - time.monotonic()))
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _final_state(self, state: str | None) -> RunState:
        try:
            return RunState(state) if state else RunState.INTERRUPTED if self.interrupted else RunState.FINISHED
        except ValueError:
            self.log_once.warn_once("state", f"finish: {state!r} is not a run state; the run is recorded as finished")
            return RunState.FINISHED

    def _at_exit(self) -> None:
        """The process exits without `finish`: after an uncaught exception (not Ctrl-C) the run has failed."""
        passing = sys.exc_info()[1]  # as multiprocessing ends a process
        uncaught = getattr(sys, "last_type", None) if passing is None else type(passing)
        state = None
        if uncaught is not None and not (isinstance(passing, SystemExit) and passing.code in (None, 0)):
            state = RunState.INTERRUPTED if issubclass(uncaught, KeyboardInterrupt) else RunState.FAILED
        self.finish(state, timeout=10.0)


_open_runs: weakref.WeakSet[RecordingRun] = weakref.WeakSet()


def _disable_in_child() -> None:
    """After a fork (DataLoader workers) only the parent records: a child has the file but not the threads."""
    for run in _open_runs:
        run.inert = True


os.register_at_fork(after_in_child=_disable_in_child)
