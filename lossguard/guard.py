"""The guard drives a training loop: it feeds batches, saves checkpoints and obeys orders, all at step boundaries."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from lossguard.batches import Feed, Indexable
from lossguard.errors import CheckpointError, CheckpointMismatch
from lossguard.ledger import Ledger, Skip
from lossguard.notices import Notices
from lossguard.orders import Order
from lossguard.protocol import OrderKind, SegmentReason
from lossguard.run import Run

HOLD_POLL = 0.05
"""Seconds between two looks at the inbox while a run is held."""


class CheckpointStore(Protocol):
    """What a guard needs of checkpoints; `lossguard.torch.Checkpoints` is one."""

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending. Checkpoint R is the state before step R."""

    def save(self, step: int, state: dict[str, Any], /) -> None:
        """Save, or begin to: `steps` has the step only once it is durable."""

    def settle(self, wait: bool = False, /) -> bool:
        """Whether a save ended in the background since the last call (`wait` for it). Raises what it failed with."""

    def pin(self, steps: Sequence[int], /) -> None:
        """Keep these, whatever is deleted for its age, until other ones are named."""

    def load(self, step: int, /) -> dict[str, Any]:
        """Restore the newest intact checkpoint at or before `step`; return its `state`.

        Raises CheckpointError when there is none, and CheckpointMismatch when what was restored is not what was saved.
        """

    def discard_after(self, step: int, /) -> None:
        """From now on the checkpoints of later steps are no part of the run."""


class Guard:
    """Feeds a loop its steps and batches, and takes it back when the collector orders so.

    `every`: steps between two checkpoints. `signals`: what stops the run after the current step, with a checkpoint; a
    second SIGINT raises KeyboardInterrupt. With several ranks (WORLD_SIZE) rank 0 alone saves, and nobody rolls back:
    one rank going back alone would poison the others.

    Every restore is verified. One that is not exact raises CheckpointMismatch out of `steps`, and one that breaks off
    with no way back to a checkpoint CheckpointError: the only errors that a guard raises into a loop once it runs,
    because going on would train something else than the run.
    """

    def __init__(
        self,
        run: Run,
        *,
        checkpoints: CheckpointStore,
        every: int = 50,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 step")
        self.run = run
        self.checkpoints = checkpoints
        self.every = every
        self.signals = tuple(signals)
        self.ledger = Ledger(run.history.skips)
        self.lr_scale = 1.0
        """Factor for the schedule's learning rate; an order may lower it."""
        self.interrupted_by: signal.Signals | None = None
        """The first signal that asked the run to stop."""
        self.held = False
        """Whether the run waits for a person: an order to hold was obeyed, and none to go on has come."""
        self.step = 0
        self._cursor = 0  # batch index from which the next step takes its batch
        self._saved: int | None = None  # the step whose checkpoint is the present state
        self._owner = None if run.directory is None else run.id  # whose checkpoints these are; None: nobody knows
        self._pinned: list[int] = []  # what an escalation of the last rollback may need,
        self._pinned_until = 0  # up to this step
        self._notices = Notices()
        if run.num_ranks == 1:
            run.can_roll_back()
        elif run.rank == 0:
            self._notices.say("ranks", f"{run.num_ranks} ranks: this run saves and reports, but does not roll back")

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the run to stop."""
        return self.interrupted_by is not None

    def steps(self, batches: Indexable | Iterable[Any], until: int) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch) up to step `until` - 1, from the newest checkpoint on where there is one.

        `batches` is anything with `__getitem__` by absolute batch index (a skip is a jump, a replay is exact), or any
        iterable (skipped by consuming). Raises ValueError for an empty sequence, CheckpointError when there are
        checkpoints and none is intact or a new run finds those of another, and CheckpointMismatch when a restore is not
        exact.
        """
        feed = Feed(batches)
        self._resume()
        with self._watching_signals(), self._telling_batches():
            while True:
                self._settle()
                self._obey(feed)
                if self.interrupted or self.step >= until:
                    break
                if self.step % self.every == 0:
                    self._save()
                index = self.ledger.next_free(self._cursor)
                try:
                    batch = feed.get(index)
                except StopIteration:
                    break
                self.run.batch_index = index
                yield self.step, batch
                self.step, self._cursor, self._saved = self.step + 1, index + 1, None
            self._save()
            self._settle(wait=True)

    def _resume(self) -> None:
        reason = SegmentReason.RESUME if self.run.history.num_segments else SegmentReason.START
        if self.checkpoints.steps():
            self._restore(self.checkpoints.steps()[-1])
            reason = SegmentReason.RESUME
        self.run.open_segment(self.step, reason)
        self.run.set_restorable(self.checkpoints.steps())

    def _restore(self, step: int) -> None:
        state = self.checkpoints.load(step)
        self._check_owner(state.get("run"))
        _check_position(state, step)
        self.step = self._saved = state["step"]
        self._cursor = state["cursor"]
        self.lr_scale = state["lr_scale"] if self.run.history.lr_scale is None else self.run.history.lr_scale
        self._pinned, self._pinned_until = state["pinned"], state["pinned_until"]
        for skip in state["ledger"]:
            self.ledger.add(Skip(*skip))

    def _check_owner(self, owner: str | None) -> None:
        """A run that records and has no past goes on from its own checkpoints alone: the others tell another story."""
        if self._owner is None:
            self._owner = owner
        elif owner not in (None, self._owner) and not self.run.history.num_segments:
            place = getattr(self.checkpoints, "directory", "the store")
            raise CheckpointError(
                f"{place} holds checkpoints of run {owner!r}, and this is the new run {self.run.id!r}: "
                f"pass run_id={owner!r} to lossguard.init to resume that run, or keep checkpoints in another folder"
            )

    def _save(self) -> None:
        if self._saved == self.step or self.run.rank > 0:
            return
        self._settle(wait=True)
        if self.step >= self._pinned_until:
            self._pinned = self._pinned[-2:]  # what a replay of the incident starts from: there, and one earlier
        try:
            self.checkpoints.pin(self._pinned)
            self.checkpoints.save(self.step, self._state())
        except Exception as problem:  # a full disk must not end a run that computes
            self._miss(problem)
        else:
            self._saved = self.step
        self.run.set_restorable(self.checkpoints.steps())

    def _state(self) -> dict[str, Any]:
        skips = [[skip.skip_from, skip.skip_to, skip.reason] for skip in self.ledger.skips]
        state: dict[str, Any] = {"step": self.step, "cursor": self._cursor, "lr_scale": self.lr_scale, "ledger": skips}
        state["run"] = self._owner
        return state | {"pinned": self._pinned, "pinned_until": self._pinned_until}

    def _settle(self, wait: bool = False) -> None:
        """Tell what became of a save in the background: only what is durable can be restored."""
        try:
            if self.checkpoints.settle(wait):
                self.run.set_restorable(self.checkpoints.steps())
                self._notices.forget("save")
        except Exception as problem:
            self._miss(problem)

    def _miss(self, problem: Exception) -> None:
        self._saved = None
        self._notices.say("save", f"a checkpoint could not be saved, the run goes on without it: {problem}")

    def _obey(self, feed: Feed) -> None:
        while (order := self.run.take_order()) is not None:
            if order.kind is OrderKind.ROLLBACK:
                self._roll_back(order, feed)
            elif order.kind is OrderKind.HOLD:
                self._hold(order, feed)
            else:
                self.run.accept(order, "the run was not held")

    def _roll_back(self, order: Order, feed: Feed) -> bool:
        """Restore, extend the ledger, and say so in one line of the spool. Returns whether that worked."""
        left = self.step
        self._settle(wait=True)
        try:
            if order.rewind_to is None:
                raise CheckpointError("the order names no step to rewind to")
            self._restore(order.rewind_to)
        except CheckpointMismatch as problem:
            self.run.refuse(order, str(problem))
            raise
        except CheckpointError as problem:
            self.run.refuse(order, str(problem))
            return False
        except Exception as problem:  # an object's own load_state_dict may raise anything, with half of it loaded
            why = f"{type(problem).__name__}: {problem}"
            self.run.refuse(order, f"restoring failed: {why}")
            self._recover(left, why)
            self._cursor = feed.earliest(self._cursor)
            return False
        self._cursor = feed.earliest(self._cursor)
        # Before the line is written: should we die in between, the order is still open and is obeyed after the restart.
        self._discard()
        self._pinned, self._pinned_until = self.checkpoints.steps(), max(self._pinned_until, 2 * left - self.step)
        applied: dict[str, Any] = {"rewound_to": self.step, "reason": order.reason}
        if order.skip_from is not None and order.skip_to is not None:
            self.ledger.add(Skip(order.skip_from, order.skip_to, order.reason))
            applied |= {"skip_from": order.skip_from, "skip_to": order.skip_to}
        if order.lr_scale is not None:
            self.lr_scale = self.run.history.lr_scale = applied["lr_scale"] = order.lr_scale
        self.run.open_segment(self.step, SegmentReason.ROLLBACK, order, applied)
        self.run.set_restorable(self.checkpoints.steps())
        return True

    def _recover(self, left: int, why: str) -> None:
        """Bring back the newest checkpoint after a restore that failed half-way.

        Raises CheckpointError when that fails too: training on with a half-restored model would be worse than to end.
        """
        self._notices.say(f"recover {why}", f"a rollback failed ({why}): back to the newest checkpoint instead")
        try:
            self._restore(max(self.checkpoints.steps(), default=left))
        except CheckpointMismatch:
            raise
        except Exception as problem:
            raise CheckpointError(
                f"a rollback failed half-way ({why}), and so did the way back to the newest checkpoint ({problem}): "
                "the model is half-restored, so training stops here"
            ) from problem
        if self.step < left:
            self.run.open_segment(self.step, SegmentReason.REWIND)

    def _discard(self) -> None:
        try:
            self.checkpoints.discard_after(self.step)
        except OSError as problem:
            self._notices.say("discard", f"checkpoints after step {self.step} could not be deleted: {problem}")

    def _hold(self, order: Order, feed: Feed) -> None:
        """Wait at the boundary until a person releases the run or rolls it back; heartbeats bring the word."""
        self._save()
        self._settle(wait=True)
        self.run.accept(order)
        why = f": {order.reason}" if order.reason else ""
        self._notices.say("held", f"held before step {self.step}, until it is released or rolled back{why}")
        self.held = True
        while self.held and not self.interrupted:
            word = self.run.take_order()
            if word is None:
                time.sleep(HOLD_POLL)
            elif word.kind is OrderKind.ROLLBACK:
                self.held = not self._roll_back(word, feed)
            else:
                self.run.accept(word)
                self.held = word.kind is not OrderKind.RELEASE
        self._notices.forget("held")

    @contextmanager
    def _telling_batches(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.run.batch_index = None

    @contextmanager
    def _watching_signals(self) -> Iterator[None]:
        """Stop after the current step on a signal. Only the main thread may set handlers; elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._interrupt) for number in self.signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.interrupted_by = self.interrupted_by or signal.Signals(number)
        self.run.interrupted = True


def _check_position(state: dict[str, Any], step: int) -> None:
    """The restored step is at or before the one asked for, and its batch was not used before it. Each step took one."""
    if not 0 <= state["step"] <= step or state["cursor"] < state["step"]:
        raise CheckpointMismatch(
            f"the checkpoint for step {step} says step {state['step']} with batch {state['cursor']} next, "
            "which no run can have reached"
        )
