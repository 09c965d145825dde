"""The guard drives a training loop: it yields batches, saves checkpoints and executes orders at step boundaries."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from lossguard.batches import BatchSource, Indexable
from lossguard.checkpoint_store import CheckpointStore, KeepsInMemory
from lossguard.checkpoint_times import CheckpointTimes
from lossguard.distributed import current_ranks
from lossguard.errors import CheckpointError, CheckpointMismatch, ConfigurationError
from lossguard.ledger import Ledger, Skip
from lossguard.log_once import LogOnce
from lossguard.orders import Order
from lossguard.ranks import Ranks, RankState
from lossguard.remedies import LASTS, Remedies
from lossguard.run import Run
from lossguard.signals import handling
from lossguard.states import OrderKind, SegmentReason, Tier

HOLD_POLL_SECONDS = 0.05
"""Pause between two looks at the inbox while a run is held."""


class Guard:
    """Yields steps and batches to a loop, and takes the run back when the collector orders a rollback.

    `every`: steps between two checkpoints. `signals`: signals that stop the run after the current step, with a
    checkpoint; a second SIGINT raises KeyboardInterrupt. `ranks`: the processes that train the run together, by default
    those of torch.distributed if it is initialised. All ranks act at the same step: an order to rank 0, a signal on any
    rank and a restore that fails on one rank concern all of them, at the boundary where all know of it.

    Every restore is verified. `steps` raises CheckpointMismatch if a restore is not exact, or fails half-way and cannot
    be undone, and RanksError if a rank has left. A guard raises no other errors into a running loop: in these cases,
    continuing would train something else than the run.
    """

    def __init__(
        self,
        run: Run,
        *,
        checkpoints: CheckpointStore,
        every: int = 50,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        ranks: Ranks | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 step")
        self.run = run
        self.checkpoints = checkpoints
        self.every = every
        self._memory = checkpoints if isinstance(checkpoints, KeepsInMemory) and checkpoints.memory_every else None
        self._times = CheckpointTimes(checkpoints)
        self.signals = tuple(signals)
        self.ranks = current_ranks() if ranks is None else ranks
        run.history = self.ranks.broadcast(run.history)
        self.ledger = Ledger(run.history.skips)
        self._lr_scale = 1.0
        self.interrupted_by: signal.Signals | None = None
        """The first signal that asked the run to stop."""
        self.held = False
        """Whether the run waits for an operator: a hold order was executed, and no release order has come."""
        self.step = 0
        self._cursor = 0  # batch index from which the next step takes its batch
        self._saved_step: int | None = None  # the step whose checkpoint is the present state
        self._checkpoint_owner = self.ranks.broadcast(None if run.directory is None else run.id)  # None: unknown
        self._pinned: list[int] = []  # checkpoints that an escalation of the last rollback may need,
        self._pinned_until = 0  # up to this step
        self._order: Order | None = None  # taken from the inbox, and not yet known to all ranks
        self._stopping = False  # all ranks know of a signal
        self._log_once = LogOnce(quiet=run.rank > 0)
        self.remedies = Remedies(run, self.ranks, self._log_once)
        """The remedies that the loop has registered, and until when those that were ordered are in effect."""
        self.tell: Callable[[str], None] = self._log_once.warn
        """Called with one sentence for each resume and each rollback; a loop with its own display may replace it."""
        if run.num_ranks <= self.ranks.size:
            run.can_roll_back()
        else:
            self._log_once.warn_once(
                "ranks",
                f"{run.num_ranks} ranks cannot communicate: rank 0 saves and reports, and no rank rolls back; "
                "call torch.distributed.init_process_group before lossguard.init",
            )

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the run to stop."""
        return self.interrupted_by is not None

    @property
    def lr_scale(self) -> float:
        """Factor for the schedule's learning rate at this step; an order or a remedy may lower it."""
        return self._lr_scale * self.remedies.lr_factor(self.step)

    @lr_scale.setter
    def lr_scale(self, factor: float) -> None:
        self._lr_scale = factor

    def remedy(
        self, name: str, apply: Callable[[], object], revert: Callable[[], object], *, lasts: int = LASTS
    ) -> None:
        """Register a change of the training that the policy may switch on with a rollback, for `lasts` steps.

        `apply()` is called after the restore, before the next batch, on every rank; `revert()` before the first step at
        which the remedy is in effect no more: `lasts` steps after the restored one. A resumed process calls `apply()`
        again while it is in effect. Both should change what no checkpoint holds, such as a number that the loop reads.
        One that raises is reported, and training continues; an `apply` that raises must have changed nothing.

        Register before `steps`, on every rank in the same order. Raises ValueError for a name that is registered
        already or has other characters than a-z, 0-9 and _, and for `lasts` below 1.
        """
        self.remedies.register(name, apply, revert, lasts)

    def steps(self, batches: Indexable | Iterable[Any], until: int) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch) up to step `until` - 1, starting from the newest checkpoint if there is one.

        `batches` is anything with `__getitem__` by absolute batch index (a skip is a jump, a replay is exact), or any
        iterable (skipped batches are read and dropped). Raises ConfigurationError while another process writes the
        checkpoints, ValueError for an empty sequence, CheckpointError when no checkpoint is intact or a new run finds
        the checkpoints of another run, and CheckpointMismatch when a restore is not exact, or fails half-way and cannot
        be undone.
        """
        source = BatchSource(batches)
        with self._locked_checkpoints():
            yield from self._steps(source, until)

    def _steps(self, source: BatchSource, until: int) -> Iterator[tuple[int, Any]]:
        self._resume()
        with handling(self.signals, self._on_signal), self._reporting_batch_index():
            while True:
                self._check_background_save()
                self._execute_orders(source, is_last=self.step >= until)
                if self._stopping or self.step >= until:
                    break
                self.remedies.update(self.step)
                if self.step % self.every == 0:
                    self._save()
                elif self._memory is not None and self.step % (self._memory.memory_every or self.every) == 0:
                    self._save_in_memory(self._memory)
                index = self.ledger.next_free(self._cursor)
                try:
                    batch = source.get(index)
                except StopIteration:
                    break
                self.run.batch_index = index
                yield self.step, batch
                self.step, self._cursor, self._saved_step = self.step + 1, index + 1, None
            self._save()
            self._check_background_save(wait=True)
            self.ranks.exchange(RankState(self.step), wait=True)  # all ranks have reached the end
            self.ranks.close()

    def _resume(self) -> None:
        reason = SegmentReason.RESUME if self.run.history.num_segments else SegmentReason.START
        known = self.ranks.broadcast(self.checkpoints.steps())
        if known:
            self._restore(known[-1])
            reason = SegmentReason.RESUME
            self.tell(f"resumed from the checkpoint of step {self.step}")
        self.run.open_segment(self.step, reason)
        self._report_restorable()

    def _durable_steps(self) -> list[int]:
        """Steps that another process could restore, too."""
        return self.checkpoints.steps() if self._memory is None else self._memory.durable_steps()

    def _report_restorable(self) -> None:
        steps = self.checkpoints.steps()
        self.run.set_restorable(steps, self._times.tiers(steps))

    def _restore(self, step: int) -> None:
        self.ranks.run_on_all(self._restore_here, step)

    def _restore_here(self, step: int) -> None:
        state = self._times.load(step)
        self._check_owner(state.get("run"))
        _check_position(state, step)
        self.step = state["step"]
        self._saved_step = self.step if self.step in self._durable_steps() else None
        self._cursor = state["cursor"]
        self._lr_scale = state["lr_scale"] if self.run.history.lr_scale is None else self.run.history.lr_scale
        self.remedies.restore(state.get("remedies", {}))
        self._pinned, self._pinned_until = state["pinned"], state["pinned_until"]
        for skip in state["ledger"]:
            self.ledger.add(Skip(*skip))

    def _check_owner(self, owner: str | None) -> None:
        """A new run that is recorded may not continue from the checkpoints of another run."""
        if self._checkpoint_owner is None:
            self._checkpoint_owner = owner
        elif owner not in (None, self._checkpoint_owner) and not self.run.history.num_segments:
            place = getattr(self.checkpoints, "directory", "the store")
            raise CheckpointError(
                f"{place} holds checkpoints of run {owner!r}, and this is the new run {self.run.id!r}: "
                f"pass run_id={owner!r} to lossguard.init to resume that run, or keep checkpoints in another folder"
            )

    def _save(self) -> None:
        if self._saved_step == self.step or (self.run.rank > 0 and self.ranks.size == 1):
            return
        began = time.perf_counter()
        self._check_background_save(wait=True)
        if self.step >= self._pinned_until:
            self._pinned = self._pinned[-2:]  # a replay of the incident starts from the last, and from an earlier one
        try:
            self.checkpoints.pin(self._pinned)
            self.checkpoints.save(self.step, self._state())
        except Exception as problem:  # a full disk must not end a run that computes
            self._report_failed_save(problem)
        else:
            self._saved_step = self.step
            self._times.saved(Tier.DISK, began)
        self._report_restorable()

    def _save_in_memory(self, checkpoints: KeepsInMemory) -> None:
        if self.run.rank > 0 and self.ranks.size == 1:
            return
        began = time.perf_counter()
        try:
            checkpoints.save_in_memory(self.step, self._state())
        except Exception as problem:  # too little memory must not end a run that computes
            self._report_failed_save(problem)
        else:
            self._times.saved(Tier.MEMORY, began)
        self._report_restorable()

    def _state(self) -> dict[str, Any]:
        skips = [[skip.skip_from, skip.skip_to, skip.reason] for skip in self.ledger.skips]
        state: dict[str, Any] = {"step": self.step, "cursor": self._cursor, "lr_scale": self._lr_scale, "ledger": skips}
        state |= {"run": self._checkpoint_owner, "remedies": dict(self.remedies.ends)}
        return state | {"pinned": self._pinned, "pinned_until": self._pinned_until}

    def _check_background_save(self, wait: bool = False) -> None:
        """Report how a background save ended: only a durable checkpoint can be restored."""
        try:
            if self.checkpoints.settle(wait):
                self._report_restorable()
                self._log_once.reset("save")
        except Exception as problem:
            self._report_failed_save(problem)

    def _report_failed_save(self, problem: Exception) -> None:
        self._saved_step = None
        self._log_once.warn_once("save", f"a checkpoint could not be saved; the run continues without it: {problem}")

    def _execute_orders(self, source: BatchSource, *, is_last: bool) -> None:
        combined = self._exchange_state(wait=is_last)
        while combined.order and (order := self._next_order()) is not None:
            if order.kind is OrderKind.ROLLBACK:
                self._roll_back(order, source)
            elif order.kind is OrderKind.HOLD:
                self._hold(order, source)
            else:
                self.run.accept(order, "the run was not held")

    def _exchange_state(self, *, wait: bool) -> RankState:
        """Tell the other ranks of a signal or an order, and learn of theirs."""
        self._order = self._order or self.run.take_order()
        state = RankState(self.step, self.interrupted_by or 0, self._order is not None)
        combined = self.ranks.exchange(state, wait=wait)
        if combined.signal:
            self._stopping = self.run.interrupted = True
            self.interrupted_by = self.interrupted_by or signal.Signals(combined.signal)
        return combined

    def _next_order(self) -> Order | None:
        """Rank 0's next order, on all ranks."""
        order, self._order = self._order or self.run.take_order(), None
        return self.ranks.broadcast(order)

    def _roll_back(self, order: Order, source: BatchSource) -> bool:
        """Restore, extend the ledger, and record both in one line of the spool. Returns whether that worked."""
        left_step = self.step
        self.remedies.revert_ended(left_step)  # before the restore may bring them back
        self._check_background_save(wait=True)
        if not self._restore_for(order, source):
            return False
        # Before the line is written: if the process dies in between, the order is still open and is executed again.
        self._discard_later_checkpoints()
        self._pinned = self._durable_steps()
        self._pinned_until = max(self._pinned_until, 2 * left_step - self.step)
        applied = self._apply(order)
        self.run.open_segment(self.step, SegmentReason.ROLLBACK, order, applied)
        self._report_restorable()
        batch = self.ledger.next_free(self._cursor)
        done = replace(order, remedies=tuple(applied.get("remedies", ())))  # without those that could not be applied
        self.tell(f"rolled back from step {left_step} to step {self.step}; the next batch is {batch}{done.describe()}")
        return True

    def _restore_for(self, order: Order, source: BatchSource) -> bool:
        """Restore the checkpoint that `order` names; if that fails, refuse the order and return False."""
        left_step = self.step
        try:
            if order.rewind_to is None:
                raise CheckpointError("the order names no step to rewind to")
            self._restore(order.rewind_to)
        except CheckpointError as problem:
            self.run.refuse(order, str(problem))
            if isinstance(problem, CheckpointMismatch):
                raise
            return False
        except Exception as problem:  # an object's own load_state_dict may raise anything, with half of it loaded
            why = f"{type(problem).__name__}: {problem}"
            self.run.refuse(order, f"restoring failed: {why}")
            self._restore_newest(left_step, why)
            self._cursor = source.first_available(self._cursor)
            return False
        self._cursor = source.first_available(self._cursor)
        return True

    def _apply(self, order: Order) -> dict[str, Any]:
        """Take over skip, learning rate and remedies of `order`; return what the spool records of it."""
        if order.skip_from is not None and order.skip_to is not None:
            self.ledger.add(Skip(order.skip_from, order.skip_to, order.reason))
        if order.lr_scale is not None:
            self._lr_scale = self.run.history.lr_scale = order.lr_scale
        return order.applied_at(self.step) | self.remedies.start(order.remedies, self.step)

    def _restore_newest(self, left_step: int, why: str) -> None:
        """Restore the newest checkpoint after a restore that failed half-way.

        Raises CheckpointMismatch when that fails too: training on a half-restored model would be worse than stopping.
        """
        self._log_once.warn_once(
            f"recover {why}", f"a rollback failed ({why}): the newest checkpoint is restored instead"
        )
        try:
            self._restore(self.ranks.broadcast(max(self.checkpoints.steps(), default=left_step)))
        except CheckpointMismatch:
            raise
        except Exception as problem:
            raise CheckpointMismatch(
                f"a rollback failed half-way ({why}), and so did restoring the newest checkpoint ({problem}): "
                "the model is half-restored, so training stops here"
            ) from problem
        if self.step < left_step:
            self.run.open_segment(self.step, SegmentReason.REWIND)

    def _discard_later_checkpoints(self) -> None:
        try:
            self.checkpoints.discard_after(self.step)
        except (OSError, ConfigurationError) as problem:
            self._log_once.warn_once("discard", f"checkpoints after step {self.step} could not be deleted: {problem}")

    def _hold(self, order: Order, source: BatchSource) -> None:
        """Wait at the boundary until an operator releases the run or rolls it back; heartbeats bring that order."""
        self._save()
        self._check_background_save(wait=True)
        self.run.accept(order)
        why = f": {order.reason}" if order.reason else ""
        self._log_once.warn_once("held", f"held before step {self.step} until it is released or rolled back{why}")
        self.held = True
        while self.held:
            combined = self._exchange_state(wait=True)
            if self._stopping:
                break
            next_order = self._next_order() if combined.order else None
            if next_order is None:
                time.sleep(HOLD_POLL_SECONDS)
            elif next_order.kind is OrderKind.ROLLBACK:
                self.held = not self._roll_back(next_order, source)
            else:
                self.run.accept(next_order)
                self.held = next_order.kind is not OrderKind.RELEASE
        self._log_once.reset("held")

    @contextmanager
    def _locked_checkpoints(self) -> Iterator[None]:
        """Nothing is restored, saved or deleted while another process does so."""
        only_reads = self.run.rank > 0 and self.ranks.size == 1  # rank 0 saves for all, see `_save`
        lock, unlock = (None if only_reads else getattr(self.checkpoints, name, None) for name in ("lock", "unlock"))
        if lock is not None:
            lock(wait=self.run.lock_wait)
        try:
            yield
        finally:
            if unlock is not None:
                unlock()

    @contextmanager
    def _reporting_batch_index(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.run.batch_index = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.interrupted_by = self.interrupted_by or signal.Signals(number)
        self.run.interrupted = True


def _check_position(state: dict[str, Any], step: int) -> None:
    """The restored step is at or before the requested one, and each step before it has used one batch."""
    if not 0 <= state["step"] <= step or state["cursor"] < state["step"]:
        raise CheckpointMismatch(
            f"the checkpoint for step {step} contains step {state['step']} with batch {state['cursor']} next, "
            "which no run can have reached"
        )
