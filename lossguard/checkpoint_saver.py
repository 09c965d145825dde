"""The checkpoints of one guarded run: when they are saved and pinned, and what the collector learns of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lossguard.checkpoint_store import CheckpointStore, KeepsInMemory, Uploads, durable_tier
from lossguard.checkpoint_times import CheckpointTimes
from lossguard.errors import ConfigurationError
from lossguard.log_once import LogOnce
from lossguard.metrics import CHECKPOINT_SECONDS
from lossguard.ranks import Ranks
from lossguard.run import Run
from lossguard.states import Tier


class CheckpointSaver:
    """Saves a run into a CheckpointStore: a save that fails is reported, and the run continues without it."""

    def __init__(self, run: Run, checkpoints: CheckpointStore, ranks: Ranks, log_once: LogOnce, *, every: int) -> None:
        """`every`: steps between two durable checkpoints."""
        self._run, self._checkpoints, self._log_once, self._every = run, checkpoints, log_once, every
        self._ranks = ranks
        self._is_saved_by_another = run.rank > 0 and ranks.size == 1  # rank 0 saves for ranks that cannot communicate
        self._memory = checkpoints if isinstance(checkpoints, KeepsInMemory) and checkpoints.memory_every else None
        self._times = CheckpointTimes(checkpoints)
        self._saved_step: int | None = None  # the step whose durable checkpoint is the present state
        self.pinned: list[int] = []
        """Checkpoints that an escalation of the last rollback may need,"""
        self.pinned_until = 0
        """up to this step."""

    def durable_steps(self) -> list[int]:
        """Steps that another process could restore, too."""
        return self._checkpoints.steps() if self._memory is None else self._memory.durable_steps()

    def load(self, step: int) -> dict[str, Any]:
        """See `CheckpointStore.load`."""
        return self._times.load(step)

    def restored(self, step: int) -> None:
        """The present state is that of `step`."""
        self._saved_step = step if step in self.durable_steps() else None

    def stepped(self) -> None:
        """The present state is that of no checkpoint."""
        self._saved_step = None

    def save_if_due(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Save before `step` if it is one of every so many: durably, or else in memory.

        A durable one would have to wait while an earlier one is being uploaded, so it is left out then.
        """
        is_due = step % self._every == 0
        if is_due and not self._is_uploading(step):
            self.save(step, state)
        elif self._memory is not None and (is_due or step % (self._memory.memory_every or self._every) == 0):
            self._save_in_memory(self._memory, step, state)

    def _is_uploading(self, step: int) -> bool:
        if not isinstance(self._checkpoints, Uploads) or not self._ranks.broadcast(self._checkpoints.is_uploading()):
            return False
        self._log_once.warn_once(
            "uploading",
            f"the checkpoint of step {step} is left out, because an earlier one is still being uploaded: "
            f"an upload takes longer than {self._every} steps",
        )
        return True

    def save(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Save durably, or begin to, unless the present state is saved. `state()` is what the controller must know."""
        if self._saved_step == step or self._is_saved_by_another:
            return
        began = time.perf_counter()
        self.settle(wait=True)
        if step >= self.pinned_until:
            self.pinned = self.pinned[-2:]  # a replay of the incident starts from the last, and from an earlier one
        try:
            self._checkpoints.pin(self.pinned)
            self._checkpoints.save(step, state())
        except Exception as problem:  # a full disk must not end a run that computes
            self._report_failed_save(problem)
        else:
            self._saved_step = step
            self._times.saved(durable_tier(self._checkpoints), began)
        self._run.add_seconds(CHECKPOINT_SECONDS, time.perf_counter() - began)
        self.report_restorable()

    def _save_in_memory(self, memory: KeepsInMemory, step: int, state: Callable[[], dict[str, Any]]) -> None:
        if self._is_saved_by_another:
            return
        began = time.perf_counter()
        try:
            memory.save_in_memory(step, state())
        except Exception as problem:  # too little memory must not end a run that computes
            self._report_failed_save(problem)
        else:
            self._times.saved(Tier.MEMORY, began)
        self._run.add_seconds(CHECKPOINT_SECONDS, time.perf_counter() - began)
        self.report_restorable()

    def settle(self, wait: bool = False) -> None:
        """Report how a background save ended: only a durable checkpoint can be restored."""
        try:
            if self._checkpoints.settle(wait):
                self.report_restorable()
                self._log_once.reset("save")
        except Exception as problem:
            self._report_failed_save(problem)

    def settle_for_rollback(self) -> None:
        """The same, without waiting for an upload: what the run is about to leave need not be durable."""
        if isinstance(self._checkpoints, Uploads):
            self._checkpoints.stop_uploading()
        self.settle(wait=True)

    def _report_failed_save(self, problem: Exception) -> None:
        self._saved_step = None
        self._log_once.warn_once("save", f"a checkpoint could not be saved; the run continues without it: {problem}")

    def report_restorable(self) -> None:
        """Tell the collector which steps can be restored; rank 0 alone looks."""
        if self._run.rank > 0:
            return
        steps: Sequence[int] = self._checkpoints.steps()
        self._run.set_restorable(steps, self._times.tiers(steps))

    def pin_all(self, until: int) -> None:
        """Keep all that there are now up to step `until`: the rollback may have been too short."""
        self.pinned = self.durable_steps()
        self.pinned_until = max(self.pinned_until, until)

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps; a disk that refuses it does not end the run."""
        try:
            self._checkpoints.discard_after(step)
        except (OSError, ConfigurationError) as problem:
            self._log_once.warn_once("discard", f"checkpoints after step {step} could not be deleted: {problem}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing is restored, saved or deleted while another process does so."""
        lock, unlock = (
            None if self._is_saved_by_another else getattr(self._checkpoints, name, None) for name in ("lock", "unlock")
        )
        if lock is not None:
            lock(wait=self._run.lock_wait)
        try:
            yield
        finally:
            if unlock is not None:
                unlock()
