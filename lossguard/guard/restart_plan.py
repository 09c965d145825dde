"""The restart contract: rollbacks of a training script that can only be started again.

    run = lossguard.init(project="gpt-small", run_id=..)     # the same id at every start, or LOSSGUARD_RUN_ID
    plan = lossguard.restart(run)
    for late in plan.discarded(steps_on_disk()):             # their steps were rolled back
        remove_checkpoint(late)
    step = plan.newest(steps_on_disk())                      # None: begin at the first step
    ...load that checkpoint, and with it the index of the next batch...
    plan.resumed(step or 0)
    while step < until:
        batch = plan.next_free(batch)
        ...train on `batch`, with the schedule's learning rate * plan.lr_scale...
        run.log(step, loss=loss, batch_index=batch)
        step, batch = step + 1, batch + 1
        if step % 100 == 0:
            save_checkpoint(step, batch)
            plan.saved(steps_on_disk())
        plan.check()                                         # leaves with exit code 75 when there is an order

Whatever starts the command again (`lossguard launch`, torchrun --max-restarts, a scheduler's requeue, Kubernetes) then
continues the run as the order says. `check` keeps the order in the run's folder before it leaves, so a process that is
killed at any moment leaves an order that is executed once, or is still open.
"""

import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from lossguard.guard.limits_in_force import LimitsInForce, OrderInbox
from lossguard.guard.restart_state import RestartState
from lossguard.run.interrupts import handling
from lossguard.run.ranks import Ranks, RankState, current_ranks
from lossguard.run.run import Run
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.orders import Ledger, Order, Skip
from lossguard.vocabulary.protocol import MAX_STEP, is_remedy, is_step
from lossguard.vocabulary.states import OrderKind, Refusal, RunState, SegmentReason

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the process asks to be started again, because of an order."""
FINISH_SECONDS = 2.0
"""Seconds to deliver the rest of the spool before the process leaves; the next process goes on with it."""


def restart(
    run: Run, *, remedies: Mapping[str, int] | None = None, ranks: Ranks | None = None, limits: Limits | None = None
) -> "RestartPlan":
    """Return the plan of this process of `run`: which checkpoint it loads, what it skips, and when it has to leave.

    `remedies`: the changes of the training that the script can switch on (see `RestartPlan.has_remedy`), by name the
    number of steps for which each is in effect. `ranks`: the processes that train the run together, by default those
    of torch.distributed if it is initialised; each of them calls this and every method at the same place. `limits`:
    what orders may do at most, as for a `Guard`; `Limits(not_after=..)` needs `total_steps` of `lossguard.init`.

    Raises ValueError for an invalid name or duration of a remedy.
    """
    return RestartPlan(run, remedies or {}, current_ranks() if ranks is None else ranks, limits)


class RestartPlan:
    """The orders of a script that can only be started again. `lossguard.restart` makes it."""

    def __init__(self, run: Run, remedies: Mapping[str, int], ranks: Ranks, limits: Limits | None = None) -> None:
        for name, lasts in remedies.items():
            if not is_remedy(name) or type(lasts) is not int or not 1 <= lasts < MAX_STEP:
                raise ValueError(
                    f"remedies={{{name!r:.100}: {lasts!r:.100}}} must map names of 1 to 64 characters of "
                    "a-z, 0-9 and _ to numbers of steps, at least 1"
                )
        self.run, self.ranks = run, ranks
        self._lasts = dict(remedies)
        self._log_once = LogOnce(quiet=run.rank > 0)
        run.history = ranks.broadcast(run.history)
        self.limits = LimitsInForce(run, limits)
        """The limits of orders, and whether any order is carried out now; rank 0 decides for all."""
        state = RestartState() if run.directory is None else RestartState.read(run.directory, run.history)
        self._state: RestartState = ranks.broadcast(state)
        self._on_disk: frozenset[int] | None = None  # steps with a checkpoint, as the script has said
        self._is_resumed = False
        self._reached = 0  # where the run was resumed, or has saved its newest checkpoint since
        self._num_boundaries = 0
        self._inbox = OrderInbox(
            *(self.limits, ranks),
            step=self._step_of,
            until=lambda: run.planned_steps,
            handlers={OrderKind.ROLLBACK: self._leave_for, OrderKind.HOLD: self._hold},
        )
        self.ledger = Ledger(run.history.skips)
        """The batches that are never used again."""
        if (order := self._state.order) is not None and order.skip_from is not None and order.skip_to is not None:
            self.ledger.add(Skip(order.skip_from, order.skip_to, order.reason))
        if run.num_ranks <= ranks.size:
            run.can_roll_back()
            for name in remedies:
                run.can_apply(name)
        else:
            self._log_once.warn(
                f"{run.num_ranks} ranks cannot communicate, so no order is taken: call init_process_group before init"
            )
        self._judge_again()  # much may have happened since the last process has left for its order

    # Before the loop

    @property
    def order(self) -> Order | None:
        """The order for which this process was started; None once it is executed."""
        return self._state.order

    @property
    def newest_step(self) -> int | None:
        """No checkpoint of a later step may be loaded; None: any that `discarded` does not name."""
        return self._state.newest_step

    def discarded(self, steps: Iterable[int]) -> list[int]:
        """Return those of `steps` (which have a checkpoint) whose training was rolled back.

        Remove these checkpoints, or move them aside, before `resumed`: this process counts them as gone. An order for
        which no checkpoint is old enough is refused; then only what earlier orders have discarded is listed.
        """
        found = self._look_at(steps)
        late = {step for step in found if not self._state.may_load(step)}
        self._on_disk = found - late
        return sorted(late)

    def newest(self, steps: Iterable[int]) -> int | None:
        """The step to load, of those with a checkpoint; None: there is none, and the run begins at its first step.

        An order for which no checkpoint is old enough is refused; then the newest one is loaded.
        """
        found = self._look_at(steps)
        if self._on_disk is None:
            self._on_disk = found
        return self._state.newest(found)

    def _look_at(self, steps: Iterable[int]) -> frozenset[int]:
        """Return the steps that rank 0 finds on the disk; refuse an order that cannot be executed with them."""
        found = self.ranks.broadcast(frozenset(steps))
        if self._state.order is not None and (refused := self._state.refusal(found)) is not None:
            self.refuse(refused[1], refused[0])
        return found

    def refuse(self, why: str, refusal: Refusal | None = None) -> None:
        """The order for which this process was started cannot be executed, because of `why`: the run just resumes."""
        order = self._state.order
        if order is None:
            return
        self._keep(self._state.refused())  # first: an order that the history has answered counts as executed
        self.run.history.answered.add(order.key)
        self.run.refuse(order, why, refusal)
        self._log_once.warn(f"an order could not be executed: {why}")
        self.ledger = Ledger(self.run.history.skips)

    def _judge_again(self) -> None:
        """Judge the order for which this process was started once more: nothing of it is recorded yet."""
        if (order := self._state.order) is None:
            return
        if self._inbox.is_lost(order):
            self._keep(self._state.refused())
            self.ledger = Ledger(self.run.history.skips)
        elif refused := self._inbox.refusal_now(order, max(order.step or 0, order.rewind_to or 0)):
            self.refuse(refused[1], refused[0])

    def resumed(self, step: int) -> None:
        """The state before `step` is loaded: the run continues there, and the order is executed.

        Raises ConfigurationError when this step must not be loaded: the process must not train on with it.
        """
        if not is_step(step):
            raise ConfigurationError(f"plan.resumed({step!r:.100}) must be a whole number from 0, below 2**53")
        if not self._state.may_load(step):
            allowed = "" if self.newest_step is None else f", as all after step {self.newest_step}"
            raise ConfigurationError(
                f"the checkpoint of step {step} was loaded, which an order has discarded{allowed}: load plan.newest(..)"
            )
        self._judge_again()  # loading may have taken long
        order = self._state.order
        if order is not None:
            self.run.history.answered.add(order.key)
            self.run.open_segment(step, SegmentReason.ROLLBACK, order, self._applied(order, step))
            self.limits.count_rollback()
            self._log_once.warn(order.describe(step))
        else:
            resumes = self.run.history.num_segments or step
            self.run.open_segment(step, SegmentReason.RESUME if resumes else SegmentReason.START)
        self._keep(self._state.executed())
        self._is_resumed, self._reached = True, step
        self._report()

    # In the loop

    def next_free(self, batch: int) -> int:
        """The first batch index at or after `batch` that is not skipped."""
        return self.ledger.next_free(batch)

    @property
    def lr_scale(self) -> float:
        """Factor for the schedule's learning rate: the one of the last order that has one, or 1.

        Orders of a person that name a factor are taken once the script has read it.
        """
        self.run.can_scale_lr()
        order = self._state.order
        scale = self.run.history.lr_scale if order is None or order.lr_scale is None else order.lr_scale
        return 1.0 if scale is None else scale

    def has_remedy(self, name: str, step: int) -> bool:
        """Return True if the remedy that was registered under this name is in effect at `step`."""
        if name not in self._lasts:
            raise ValueError(f"the remedy {name!r:.100} is not registered: pass it to lossguard.restart(remedies=..)")
        return step < self.run.history.remedies.get(name, 0)

    def saved(self, steps: Iterable[int]) -> None:
        """Take in all steps that have a complete checkpoint now; call it after each save, once it is durable."""
        found = frozenset(steps)
        if self._is_resumed and self._on_disk is not None:
            self._reached = max([self._reached, *found - self._on_disk])
        anew = (found - (self._on_disk or set())) & self._state.discarded
        self._on_disk = found
        if anew:  # by what this rank sees on the disk: the ranks do not wait for each other here
            self._store(self._state.written_anew(anew))
        if self._is_resumed:
            self._report()

    def check(self) -> None:
        """Between two steps: raises SystemExit with code 75, on all ranks at the same step, when there is a rollback.

        Waits here while the run is held. An order that the script cannot execute is refused.
        """
        combined = self._exchange()
        while combined.order and self._inbox.carry_out():
            pass

    def close(self) -> None:
        """With several ranks, at the end of the loop: release what their communication needs."""
        self.ranks.close()

    def _exchange(self, signal_number: int = 0, *, wait: bool = False) -> RankState:
        """Tell the other ranks of an order, and learn of rank 0's."""
        if not self._is_resumed:
            raise ConfigurationError("call plan.resumed(step) before plan.check(): the new segment has no first step")
        self._num_boundaries += 1
        state = RankState(self._num_boundaries, signal_number, self._inbox.has_order())
        return self.ranks.exchange(state, wait=wait)

    def _step_of(self, _: Order | None = None) -> int:
        """The step that comes next, as far as the script has logged or saved."""
        newest = self.run.newest_step
        return self._reached if newest is None else max(self._reached, newest + 1)

    def _leave_for(self, order: Order) -> bool:
        """Leave, so that the next process executes `order`; return False if it is refused."""
        before = self._state
        usable = (self._on_disk or frozenset()) - before.discarded
        state = before.ordered(order, usable, oldest_step=self.limits.now.oldest_step(self._step_of()))
        state, refused = self.ranks.broadcast((state, state.refusal(usable)))
        if self._inbox.is_lost(order):
            return False
        if refused is not None:
            self.run.refuse(order, refused[1], refused[0])
        elif not self._keep(state):
            self._state = before
            self.run.refuse(order, f"it cannot be kept for the restart: {self.run.directory} cannot be written")
        else:
            self._log_once.warn(f"leaving with exit code {EXIT_CODE}, to be started again at step {order.rewind_to}")
            self.run.finish(RunState.INTERRUPTED, timeout=FINISH_SECONDS)
            self.ranks.gather(None)  # a launcher may stop the others as soon as one has left
            self.ranks.close()
            sys.exit(EXIT_CODE)
        return False

    def _hold(self, order: Order) -> None:
        """Wait until an operator releases the run or rolls it back. A signal ends the wait, and is then handled."""
        received: list[int] = []
        with handling((signal.SIGTERM, signal.SIGINT), lambda number, _: received.append(number)):
            self._inbox.hold(order, lambda: self._exchange(*received[:1], wait=True))
        if received:
            signal.raise_signal(received[0])

    # What is recorded

    def _applied(self, order: Order, step: int) -> dict[str, Any]:
        """Return the fields of the order that the spool records in the line that opens the new segment."""
        applied = order.applied_at(step)
        history = self.run.history
        if order.lr_scale is not None:
            history.lr_scale = order.lr_scale
        known = {name: step + self._lasts[name] for name in order.remedies if name in self._lasts}
        ends = {name: max(end, history.remedies.get(name, 0)) for name, end in known.items()}
        history.remedies |= ends
        if ends:
            applied["remedies"] = ends
        if unknown := [name for name in order.remedies if name not in self._lasts]:
            applied["detail"] = f"the script has not registered {', '.join(map(repr, unknown))}"
        return applied

    def _report(self) -> None:
        self.run.set_restorable(sorted((self._on_disk or frozenset()) - self._state.discarded))

    def _keep(self, state: RestartState) -> bool:
        """Take over `state`, and keep it in the run's folder. Returns whether the next process will know it."""
        return self.ranks.broadcast(self._store(state))

    def _store(self, state: RestartState) -> bool:
        """Take over `state` on this rank. Returns False if it has the run's folder and could not keep it there."""
        self._state = state
        if self.run.directory is None:
            return True
        try:
            state.save(self.run.directory)
        except OSError as problem:
            self._log_once.warn_once("keep", f"{self.run.directory} cannot be written ({problem.strerror})")
            return False
        return True
