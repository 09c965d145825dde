"""The guard drives a training loop: it feeds batches, saves checkpoints and obeys orders, all at step boundaries."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lossguard.batches import Feed, Indexable
from lossguard.checkpoint_store import CheckpointStore
from lossguard.errors import CheckpointError, CheckpointMismatch
from lossguard.ledger import Ledger, Skip
from lossguard.log_once import LogOnce
from lossguard.orders import Order
from lossguard.ranks import Ranks, RankState, present
from lossguard.run import Run
from lossguard.signals import watching
from lossguard.states import OrderKind, SegmentReason

HOLD_POLL = 0.05
"""Seconds between two looks at the inbox while a run is held."""


class Guard:
    """Feeds a loop its steps and batches, and takes it back when the collector orders so.

    `every`: steps between two checkpoints. `signals`: what stops the run after the current step, with a checkpoint; a
    second SIGINT raises KeyboardInterrupt. `ranks`: the processes that train the run together; left out, those of
    torch.distributed where it is initialised. They do the same at the same step: what rank 0 is ordered and a signal on
    any of them hold for all, from the boundary on at which all know of it, and so does a restore that fails on one.

    Every restore is verified. One that is not exact, or breaks off with no way back to a checkpoint, raises
    CheckpointMismatch out of `steps`, and a rank that left RanksError: the only errors that a guard raises into a loop
    once it runs, because going on would train something else than the run.
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
        self.signals = tuple(signals)
        self.ranks = present() if ranks is None else ranks
        run.history = self.ranks.share(run.history)
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
        # Whose checkpoints these are; None: nobody knows.
        self._owner = self.ranks.share(None if run.directory is None else run.id)
        self._pinned: list[int] = []  # what an escalation of the last rollback may need,
        self._pinned_until = 0  # up to this step
        self._order: Order | None = None  # taken, and not yet known to all ranks
        self._stopping = False  # all ranks know of a signal
        self._notices = LogOnce(quiet=run.rank > 0)
        self.tell: Callable[[str], None] = self._notices.tell
        """Gets a sentence for each resume and each rollback; a loop with a display of its own may put another here."""
        if run.num_ranks <= self.ranks.size:
            run.can_roll_back()
        else:
            self._notices.say(
                "ranks",
                f"{run.num_ranks} ranks that cannot agree: rank 0 saves and reports, and nobody rolls back; "
                "call torch.distributed.init_process_group before lossguard.init",
            )

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the run to stop."""
        return self.interrupted_by is not None

    def steps(self, batches: Indexable | Iterable[Any], until: int) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch) up to step `until` - 1, from the newest checkpoint on where there is one.

        `batches` is anything with `__getitem__` by absolute batch index (a skip is a jump, a replay is exact), or any
        iterable (skipped by consuming). Raises ValueError for an empty sequence, CheckpointError when there are
        checkpoints and none is intact or a new run finds those of another, and CheckpointMismatch when a restore is not
        exact, or broke off with no way back.
        """
        feed = Feed(batches)
        self._resume()
        with watching(self.signals, self._interrupt), self._telling_batches():
            while True:
                self._settle()
                self._obey(feed, last=self.step >= until)
                if self._stopping or self.step >= until:
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
            self.ranks.meet(RankState(self.step), wait=True)  # all have come to this end
            self.ranks.close()

    def _resume(self) -> None:
        reason = SegmentReason.RESUME if self.run.history.num_segments else SegmentReason.START
        known = self.ranks.share(self.checkpoints.steps())
        if known:
            self._restore(known[-1])
            reason = SegmentReason.RESUME
            self.tell(f"going on from the checkpoint of step {self.step}")
        self.run.open_segment(self.step, reason)
        self.run.set_restorable(self.checkpoints.steps())

    def _restore(self, step: int) -> None:
        self.ranks.together(self._restore_here, step)

    def _restore_here(self, step: int) -> None:
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
        if self._saved == self.step or (self.run.rank > 0 and self.ranks.size == 1):
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

    def _obey(self, feed: Feed, *, last: bool) -> None:
        said = self._meet(wait=last)
        while said.order and (order := self._next_order()) is not None:
            if order.kind is OrderKind.ROLLBACK:
                self._roll_back(order, feed)
            elif order.kind is OrderKind.HOLD:
                self._hold(order, feed)
            else:
                self.run.accept(order, "the run was not held")

    def _meet(self, *, wait: bool) -> RankState:
        """Tell the other ranks of a signal or an order, and hear of theirs."""
        self._order = self._order or self.run.take_order()
        word = RankState(self.step, self.interrupted_by or 0, self._order is not None)
        said = self.ranks.meet(word, wait=wait)
        if said.signal:
            self._stopping = self.run.interrupted = True
            self.interrupted_by = self.interrupted_by or signal.Signals(said.signal)
        return said

    def _next_order(self) -> Order | None:
        """The order that rank 0 has, on all ranks."""
        order, self._order = self._order or self.run.take_order(), None
        return self.ranks.share(order)

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
        batch = self.ledger.next_free(self._cursor)
        self.tell(f"rolled back from step {left} to step {self.step}, which takes batch {batch}{order.told()}")
        return True

    def _recover(self, left: int, why: str) -> None:
        """Bring back the newest checkpoint after a restore that failed half-way.

        Raises CheckpointMismatch when that fails too: to train on a half-restored model would be worse than to end.
        """
        self._notices.say(f"recover {why}", f"a rollback failed ({why}): back to the newest checkpoint instead")
        try:
            self._restore(self.ranks.share(max(self.checkpoints.steps(), default=left)))
        except CheckpointMismatch:
            raise
        except Exception as problem:
            raise CheckpointMismatch(
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
        while self.held:
            said = self._meet(wait=True)
            if self._stopping:
                break
            word = self._next_order() if said.order else None
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
