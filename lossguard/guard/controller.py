"""The controller decides at each step boundary of a training loop: save, obey an order, restore, skip, stop.

It calls no training code, so it serves loops of any kind: `Guard.steps`, and loops that a framework owns.

    at = controller.open(until=10_000)            # resumes
    while not at.stop and at.step < 10_000:
        ...train one step on batch at.batch...    # at.restored: what was fetched ahead is of no use
        at = controller.boundary()
    controller.close()                            # or abandon(), if the loop raised
"""

import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from lossguard.checkpoints.store import CheckpointStore
from lossguard.guard.checkpointer import CheckpointSaver, Position
from lossguard.guard.data.comparison import SampleComparison
from lossguard.guard.data.skipped_samples import SampleSkips
from lossguard.guard.limits_in_force import LimitsInForce, OrderInbox
from lossguard.guard.preflight_check import PreflightCheck
from lossguard.guard.remedies import LASTS, Remedies
from lossguard.run.interrupts import handling
from lossguard.run.ranks import Ranks, RankState, SampleFindings, current_ranks
from lossguard.run.run import Run
from lossguard.vocabulary.errors import (
    CheckpointError,
    CheckpointMismatch,
    CheckpointTooOld,
    ConfigurationError,
    LogOnce,
)
from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.orders import Order, Skip
from lossguard.vocabulary.protocol import DATA_NOT_REPEATED, SKIPPED_SAMPLE_RETURNED, is_step
from lossguard.vocabulary.states import OrderKind, Refusal, SegmentReason

SKIP_SAMPLES = ("run", "once")
"""Values of `skip_samples`: the samples of skipped batches stay skipped, or come again in later epochs."""
NO_SKIPS = "the data does not repeat itself, so no batch of it can be skipped"
MAX_NAMED_SAMPLES = 20
"""Maximum number of skipped samples that a sentence or an answer to the collector names."""
MAX_RETURNED = 16
"""Maximum number of events about skipped samples that came again after one rollback."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """The position of a run between two steps."""

    step: int
    """The step that comes next."""
    batch: int
    """Absolute index of the batch that it uses."""
    restored: bool
    """True if a checkpoint was restored at this boundary: the data must be read from `batch` anew."""
    stop: bool
    """True if a signal asked the run to stop here."""
    since: int
    """Absolute index of the batch that would come next without skips: those from here to `batch` are skipped."""


class Controller:
    """A run between two steps: checkpoints, orders, skips, signals, and the agreement of all ranks. See `Guard`."""

    def __init__(
        self,
        run: Run,
        *,
        checkpoints: CheckpointStore,
        every: int = 50,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        ranks: Ranks | None = None,
        skips: Iterable[Skip | tuple[int, int]] = (),
        skip_samples: str = "run",
        limits: Limits | None = None,
        decode: Callable[[Any], str] | None = None,
        resume_from: int | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 step")
        if skip_samples not in SKIP_SAMPLES:
            raise ValueError(f"skip_samples={skip_samples!r:.80} must be 'run' or 'once'")
        self.run = run
        self.checkpoints = checkpoints
        self.every = every
        self.signals = tuple(signals)
        self.skip_samples = skip_samples
        self.ranks = current_ranks() if ranks is None else ranks
        run.history = self.ranks.broadcast(run.history)
        if (resume_from := self.ranks.broadcast(resume_from)) is not None and not is_step(resume_from):
            raise ValueError(f"resume_from={resume_from!r:.80} must be a step, from 0")
        self._log_once = LogOnce(quiet=run.rank > 0)
        self.limits = LimitsInForce(run, limits)
        """The limits of orders, and whether any order is carried out now; rank 0 decides for all."""
        self.interrupted_by: signal.Signals | None = None
        """The first signal that asked the present loop, or the last one, to stop."""
        self.held = False
        """True if the run waits for an operator: a hold order was executed, and no release order has come."""
        self.decode = decode
        """Gives the text of a batch."""
        self.preflight = PreflightCheck(run, checkpoints, self.limits, self._log_once)
        """Answers what the collector asks before a person approves a rollback."""
        self._has_given_up = False
        self.comparison = SampleComparison(self._log_once)
        """Whoever hands batches to the loop adds each of them here."""
        self._num_returned = 0  # events since the last rollback about skipped samples that came again
        self._newest_returned = -1  # the batch of the last one
        self._sample_skips: SampleSkips | None = None  # of the present data, if later epochs leave samples out
        self._restored = False  # since the last boundary
        self._scales_lr = False  # the loop has read `lr_scale`
        self._inbox = OrderInbox(
            *(self.limits, self.ranks),
            step=lambda _: self.step,
            until=lambda: self._until,
            handlers={OrderKind.ROLLBACK: self._roll_back, OrderKind.HOLD: self._hold},
            problem_with=lambda order: NO_SKIPS if order.skip_from is not None and self._position.skips_ended else None,
        )
        self._stopping = False  # all ranks know of a signal
        self._saver = CheckpointSaver(run, checkpoints, self.ranks, self._log_once, every=every)
        self._open = ExitStack()  # what `close` and `abandon` end
        self._until = 0
        self._first_available: Callable[[int], int] = lambda index: index
        self.remedies = Remedies(run, self.ranks, self._log_once)
        """The remedies that the loop has registered, and until when those that were ordered are in effect."""
        self._position = Position(self._saver, self.remedies, self.comparison, skips=skips, resume_from=resume_from)
        self.ledger = self._position.ledger
        """The skips of the run."""
        self.tell: Callable[[str], None] = self._log_once.warn
        """Called with one sentence for each resume and each rollback; a loop with its own display may replace it."""
        if run.num_ranks <= self.ranks.size:
            self._announce()
        else:
            self._log_once.warn_once(
                "ranks",
                f"{run.num_ranks} ranks cannot communicate, so none rolls back: call init_process_group before init",
            )

    def _announce(self) -> None:
        self.run.can_roll_back()
        self.run.answers_questions()

    @property
    def interrupted(self) -> bool:
        """True if a signal asked the run to stop."""
        return self.interrupted_by is not None

    @property
    def step(self) -> int:
        """The step that comes next, or that the loop is at."""
        return self._position.step

    @property
    def lr_scale(self) -> float:
        """Factor for the schedule's learning rate at this step; an order or a remedy may lower it.

        Orders of a person that name a factor are taken once the loop has read it.
        """
        if not self._scales_lr:
            self._scales_lr = True
            self.run.can_scale_lr()
        return self._position.lr_scale * self.remedies.lr_factor(self.step)

    @lr_scale.setter
    def lr_scale(self, factor: float) -> None:
        self._position.lr_scale = factor

    def remedy(
        self, name: str, apply: Callable[[], object], revert: Callable[[], object], *, lasts: int = LASTS
    ) -> None:
        """Register a change of the training that the policy may switch on with a rollback, for `lasts` steps.

        `apply()` is called after the restore, before the next batch, on every rank; `revert()` before the first step at
        which the remedy is in effect no more: `lasts` steps after the restored one. A resumed process calls `apply()`
        again while it is in effect. Both should change what no checkpoint holds, such as a number that the loop reads.
        One that raises is reported, and training continues; an `apply` that raises must have changed nothing.

        Register before the loop, on every rank in the same order. Raises ValueError for a name that is registered
        already or has other characters than a-z, 0-9 and _, and for `lasts` below 1.
        """
        self.remedies.register(name, apply, revert, lasts)

    def observe(self) -> None:
        """Refuse all orders of this process from now on, and end a hold. Call it on rank 0."""
        self.limits.observe()

    def open(
        self,
        *,
        until: int,
        step: int = 0,
        batch: int | None = None,
        first_available: Callable[[int], int] = lambda index: index,
        data: Any = None,
        sample_skips: SampleSkips | None = None,
    ) -> Boundary:
        """Resume the run, and return the first boundary of a run up to step `until` - 1.

        It resumes from the newest checkpoint; the first loop of a process with `resume_from` from that one, once.

        Where there is no checkpoint, the loop stands before `step`, and its next batch is `batch` (default: `step`).
        `first_available(index)`: the first batch index from `index` on that the data can still give after a rewind.
        `data`: training data whose state belongs into the checkpoints, with `state_dict` (plain values) and
        `load_state_dict`. `sample_skips`: how the samples of skipped batches are found, where they have indices.

        Raises ConfigurationError while another process writes the checkpoints and for a `resume_from` that has none,
        CheckpointError when no checkpoint is intact or a new run finds the checkpoints of another run, and
        CheckpointMismatch.
        """
        if self._has_given_up:  # in an earlier loop
            self._has_given_up = False
            self._announce()
        self.interrupted_by, self._stopping, self.run.interrupted = None, False, False  # a signal ends one loop
        self._position.step, self._position.cursor = step, step if batch is None else batch
        self._position.data = data
        self._sample_skips = sample_skips if self.skip_samples == "run" else None
        if self._sample_skips is not None:
            self._sample_skips.begin(self.run.history.samples)
        self._until, self._first_available = until, first_available
        with ExitStack() as opening:
            opening.enter_context(self._saver.locked())
            self._resume()
            self.run.announce(self.tell, lambda: self._saver.plan(until))
            opening.enter_context(handling(self.signals, self._on_signal))
            opening.callback(setattr, self.run, "batch_index", None)
            boundary = self._decide()
            self._open = opening.pop_all()
        return boundary

    def boundary(self) -> Boundary:
        """Report that one step was done on the batch of the last boundary; return the next boundary."""
        self._restored = False
        self._position.advance()
        return self._decide()

    def has_order(self) -> bool:
        """Return True if an order waits for the next boundary. All ranks of a loop whose last step is done call it."""
        return self._exchange_state(wait=True).order

    def close(self, *, step_done: bool = False) -> None:
        """The loop has ended: save the last checkpoint, wait until it is durable, and leave together with all ranks.

        `step_done`: one step was done since the last boundary.
        """
        with self._open:
            if step_done:
                self._position.advance()
            self._saver.save(self.step, self._position.state)
            self._saver.settle(wait=True)
            self.ranks.exchange(RankState(self.step), wait=True)  # all ranks have reached the end
            self.ranks.close()
            if self.interrupted_by and self._stopping and self.step < self._until and self.run.rank == 0:
                newest = max(self._saver.durable_steps(), default=None)
                resume = f"LOSSGUARD_RUN_ID={self.run.id} with the same command resumes it from step {newest}"
                where = "no checkpoint is saved" if newest is None else resume
                self.tell(f"{self.interrupted_by.name}: the run stopped before step {self.step}; {where}")

    def abandon(self) -> None:
        """The loop raised, or was left early: signal handlers and locks are as before, and nothing is saved."""
        self._open.close()

    def give_up(self, problem: Exception) -> None:
        """An error of ours, and the loop goes on without a guard: no order is carried out up to the next `open`."""
        self.abandon()
        self._has_given_up = True
        if self.held:
            self.held = False
            self.run.open_segment(self.step, SegmentReason.RESUME)  # so the collector knows that the hold is over
        self.run.cannot_roll_back(f"the guard has failed ({type(problem).__name__}: {problem})")
        self._log_once.warn(f"the run is not guarded any more, and training continues: {problem!r}")

    def _decide(self) -> Boundary:
        self._saver.settle()
        combined = self._exchange_state(wait=self.step >= self._until)
        while combined.order and self._inbox.carry_out():
            pass
        samples = self._sample_skips  # a skip may reach into an epoch that has begun since the rollback
        if samples is not None and samples.is_due:
            found = samples.find(self.ledger.skips, self.ranks)
            if found:
                self.tell(_describe(found))
        if not self._stopping and self.step < self._until:
            self.remedies.update(self.step)
            self._saver.save_if_due(self.step, self._position.state)
        if self._restored:  # what the comparison has found, or is on its way, is about batches that the run has left
            self.ranks.exchange(RankState(self.step), wait=True)
            self._num_returned, self._newest_returned = 0, -1
            self.comparison.restored(self.ledger, self._position.cursor)
        self.run.batch_index = self._position.batch
        return Boundary(self.step, self.run.batch_index, self._restored, self._stopping, self._position.cursor)

    def resumes_at(self) -> int:
        """The step at which `open` resumes the run, if its checkpoint is intact; 0 without one."""
        known = self.ranks.ask_rank_0(self.checkpoints.steps)
        chosen = self._position.resume_from
        if chosen is not None and chosen in known and self._goes_back() and self.run.history.num_segments:
            return chosen
        return max(known, default=0)

    def _goes_back(self) -> bool:
        """Return True if `resume_from` was not carried out yet, as far as the run's folder knows."""
        return self._position.resume_from not in (None, self.run.history.resume_from)

    def _resume(self) -> None:
        history, chosen = self.run.history, self._position.resume_from
        known = self.ranks.ask_rank_0(self.checkpoints.steps)
        goes_back = self._goes_back()
        if known and not (goes_back and history.num_segments):
            self._restore_newest_of(known)
            goes_back = goes_back and not self._position.has_resumed_from_it  # by a process with another run folder
        applied = None if chosen is None else {"resume_from": chosen}
        if chosen is not None and goes_back:
            self._go_back(chosen, known)
            applied = {"resume_from": chosen, "rewound_to": chosen}
        elif known:
            carried_out = "" if chosen is None else f": resume_from={chosen} was carried out before"
            self.tell(f"resumed from the checkpoint of step {self.step}{carried_out}")
        elif history.num_segments:
            self.tell(f"no checkpoint of the run was found: it begins again at step {self.step}; is the folder right?")
        if known and self._position.skips_ended:
            self.run.cannot_skip()
        reason = SegmentReason.RESUME if known or history.num_segments else SegmentReason.START
        self.run.open_segment(self.step, reason, None, applied)
        self._saver.report_restorable()
        if chosen is not None:
            history.resume_from = chosen  # a later loop of this process resumes from the newest one

    def _go_back(self, step: int, known: Sequence[int]) -> None:
        """Restore the checkpoint that a person has chosen, and leave the newer ones as a rollback does."""
        if step in known:
            self._restore(step)
        if step not in known or self.step != step or self.ranks.broadcast(self._position.is_discarded):
            others = ", ".join(str(each) for each in known if each != step)
            choice = f"choose one of {others}" if others else "there is no other one: is the run_id right?"
            raise ConfigurationError(f"resume_from={step}: no checkpoint of that step can be restored; {choice}")
        self.tell(f"went back to the checkpoint of step {step} (resume_from); the newest one was of step {known[-1]}")
        if step < known[-1]:
            self._saver.discard_after(step)
            self._saver.pin_all(until=2 * known[-1] - step)

    def _restore_newest_of(self, known: Sequence[int]) -> None:
        """Restore the newest one that no rollback has discarded, and delete those after it.

        A rollback goes on where a checkpoint cannot be deleted, such as without a network.
        """
        for step in reversed(known):
            self._restore(step)
            if not self.ranks.broadcast(self._position.is_discarded):
                break
        else:
            raise CheckpointError(
                f"a rollback has discarded all checkpoints that are left (steps {', '.join(map(str, known))}): "
                "delete them to train from the beginning"
            )
        if step < known[-1]:
            self._saver.discard_after(step)

    def _restore(self, step: int, *, not_before: int = 0) -> None:
        self._position.restore(step, not_before=not_before)
        self._position.cursor = self._first_available(self._position.cursor)
        self._restored = True

    def _exchange_state(self, *, wait: bool) -> RankState:
        """Tell the other ranks of a signal or an order, and learn of theirs."""
        has_order = self._inbox.has_order()
        if self.run.question is not None:
            self.preflight.update(self.step, self._until)
        if self.preflight.has_found_a_problem:
            self.preflight.has_found_a_problem = False
            self._saver.report_restorable()
        state = RankState(self.step, self.interrupted_by or 0, has_order, self.comparison.findings)
        combined = self.ranks.exchange(state, wait=wait)
        self._report(combined.findings)
        if combined.signal:
            self._stopping = self.run.interrupted = True
            self.interrupted_by = self.interrupted_by or signal.Signals(combined.signal)
        return combined

    def _report(self, findings: SampleFindings) -> None:
        """Report what the comparison of samples has found on any rank, once all ranks know it."""
        self.comparison.forget(findings)
        batch, rows = findings.returned_batch, findings.returned_rows
        if self.skip_samples == "once":
            batch = -1  # later epochs use the samples again
        if batch > self._newest_returned and self._num_returned < MAX_RETURNED:
            self._newest_returned, self._num_returned = batch, self._num_returned + 1
            details = {"step": self.step - 1, "batch_index": batch, "rows": rows, "order": self.comparison.order}
            self.run.log_event(SKIPPED_SAMPLE_RETURNED, details)
            self._log_once.warn_once(
                f"returned {self.comparison.order}",
                f"{rows} samples of batch {batch} were trained again, although a rollback skipped them",
            )
        batch, rows = findings.differing_batch, findings.differing_rows
        if batch >= 0 and not self._position.skips_ended:
            self._position.skips_ended = True
            self.run.cannot_skip()
            self.run.log_event(DATA_NOT_REPEATED, {"step": self.step - 1, "batch_index": batch, "rows": rows})
            self._log_once.warn(
                f"batch {batch} was read again with other samples: this run skips no more. "
                + ("" if self.comparison.data is None else self.comparison.data.advice)
            )

    def _roll_back(self, order: Order) -> bool:
        """Restore, extend the ledger, and record both in one line of the spool. Returns whether that worked."""
        left_step = self.step
        self.remedies.revert_ended(left_step)  # before the restore may bring them back
        self._saver.settle_for_rollback()
        if not self._restore_for(order):
            return False
        if self._is_revoked(order, left_step):
            self._restore_newest(left_step, "the order does not count any more")
            return False
        # Before the line is written: if the process dies in between, the order is still open and is executed again.
        self._saver.discard_after(self.step)
        self._saver.pin_all(until=2 * left_step - self.step)
        applied = self._apply(order)
        self.run.open_segment(self.step, SegmentReason.ROLLBACK, order, applied)
        self.limits.count_rollback()
        self._saver.report_restorable()
        done = replace(order, remedies=tuple(applied.get("remedies", ())))  # without those that could not be applied
        later = " in each pass" if self.ledger.period else ""
        if "samples" in applied:
            later = f" in each epoch ({len(_indices_in(applied['samples']))} samples)"
        self.tell(done.describe(self.step, left_step, later))
        return True

    def _is_revoked(self, order: Order, step: int) -> bool:
        """Judge an order of before `step` once more, after what may have taken long: nothing of it is recorded yet."""
        if self._inbox.is_lost(order):
            return True
        if (refused := self._inbox.refusal_now(order, step)) is not None:
            self._inbox.refuse(order, *refused)
        return refused is not None

    def _restore_for(self, order: Order) -> bool:
        """Restore the checkpoint that `order` names; if that fails, refuse the order and return False."""
        left_step, oldest = self.step, self.ranks.broadcast(self.limits.now.oldest_step(self.step))
        assert order.rewind_to is not None  # the inbox refuses such an order
        try:
            self._restore(order.rewind_to, not_before=oldest)
        except CheckpointTooOld as problem:
            self._inbox.refuse(order, Refusal.LIMITS, f"{problem}, and max_depth permits none before step {oldest}")
            return False
        except CheckpointError as problem:
            self.run.refuse(order, str(problem))
            if isinstance(problem, CheckpointMismatch):
                raise
            return False
        except Exception as problem:  # an object's own load_state_dict may raise anything, with half of it loaded
            why = f"{type(problem).__name__}: {problem}"
            self.run.refuse(order, f"restoring failed: {why}")
            self._restore_newest(left_step, why)
            return False
        return True

    def _apply(self, order: Order) -> dict[str, Any]:
        """Take over skip, learning rate and remedies of `order`; return what the spool records of it."""
        if order.lr_scale is not None:
            self._position.lr_scale = self.run.history.lr_scale = order.lr_scale
        applied = order.applied_at(self.step) | self.remedies.start(order.remedies, self.step)
        if order.skip_from is None or order.skip_to is None:
            return applied
        skip = Skip(order.skip_from, order.skip_to, order.reason)
        self.ledger.add(skip)
        self.comparison.skip(order.id, skip)
        applied["compared"] = self.comparison.is_possible and self.skip_samples == "run"
        if self._sample_skips is not None:
            self._sample_skips.find(self.ledger.skips, self.ranks)
            if found := self._sample_skips.found_of(skip):
                details = filter(None, [applied.get("detail"), _describe(found)])
                applied |= {"samples": found, "detail": "; ".join(details)}
        return applied

    def _restore_newest(self, left_step: int, why: str) -> None:
        """Restore the newest checkpoint after a restore that failed half-way.

        Raises CheckpointMismatch when that fails too: training on a half-restored model would be worse than stopping.
        """
        sentence = f"a rollback failed ({why}): the newest checkpoint is restored instead"
        self._log_once.warn_once(f"recover {why}", sentence)
        try:
            self._restore(max(self.ranks.ask_rank_0(self.checkpoints.steps), default=left_step))
        except CheckpointMismatch:
            raise
        except Exception as problem:
            raise CheckpointMismatch(
                f"the model is half-restored, so training stops here: the rollback failed ({why}),\n"
                f"and so did restoring the newest checkpoint ({problem})"
            ) from problem
        if self.step < left_step:
            self.run.open_segment(self.step, SegmentReason.REWIND)

    def _hold(self, order: Order) -> None:
        """Wait at the boundary until an operator releases the run or rolls it back; heartbeats bring that order."""
        self._saver.save(self.step, self._position.state)
        self._saver.settle(wait=True)
        if self._is_revoked(order, self.step):
            return
        self.held = True
        self.held = not self._inbox.hold(order, lambda: self._exchange_state(wait=True))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.interrupted_by = self.interrupted_by or signal.Signals(number)
        self.run.interrupted = True


def _indices_in(ranges: list[list[Any]]) -> list[Any]:
    """Return the indices of all ranges, each once."""
    return list(dict.fromkeys(index for _, _, indices in ranges for index in indices))


def _describe(ranges: list[list[Any]]) -> str:
    indices = _indices_in(ranges)
    named = [f"{index!s:.40}" for index in indices[:MAX_NAMED_SAMPLES]]
    more = [".."] if len(indices) > MAX_NAMED_SAMPLES else []
    return f"later epochs leave out {len(indices)} skipped samples: {', '.join(named + more)}"
