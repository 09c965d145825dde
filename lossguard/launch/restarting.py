"""Supervised rollback: orders for a command that only knows how to be started again.

An order is kept in the folder of the launch before the command is stopped. Then, in this order: the newest checkpoint
that the order allows is chosen, later ones are moved aside, one line of the spool opens the new segment and says that
the order was executed, and the command is started from that checkpoint, without the skipped batches. A launcher that is
killed in between leaves an order that the next one executes, or one that was executed.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lossguard.guard.limits_in_force import LimitsInForce, OrderInbox
from lossguard.guard.restart_state import RestartState
from lossguard.launch.adapters import Adapter
from lossguard.launch.adapters.adapter import skips_in_environment, write_at_once
from lossguard.launch.child import Child, Stop, descendants, write_stacks
from lossguard.launch.launcher import STOPPING, ChildEnd, Restart, Supervisor
from lossguard.launch.restart_rules import HangDetector, RestartBudget
from lossguard.run.ranks import Ranks
from lossguard.run.run import Run
from lossguard.spool.history import History
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.orders import Ledger, Order, Skip
from lossguard.vocabulary.states import OrderKind, Refusal, SegmentReason
from lossguard.vocabulary.wording import form, plural

LIST_SECONDS = 1.0
"""Pause between two looks into the folder of the checkpoints."""
SKIPS_FILE = "skips.json"
EARLIER_FILE = "earlier.json"
"""Checkpoints that were there before the run, and its first step: for a later launcher of the run."""
NO_SKIP = "this command cannot leave batches out: order a rollback that skips none"

logger = logging.getLogger("lossguard")


class RestartSupervisor(Supervisor):
    """Executes the orders of a run by starting its command again."""

    def __init__(
        self,
        command: Sequence[str],
        adapter: Adapter,
        *,
        folder: Path,
        run_folder: Path | None,
        max_restarts: int,
        grace: float,
        backoff: float,
        restart_hangs: bool = False,
    ) -> None:
        """`folder`: of the launch; `run_folder`: of the run's spools, if an earlier launcher has begun it;
        `max_restarts`: within an hour, of a command that ended by itself or hung; `grace`: seconds from SIGTERM to
        SIGKILL; `backoff`: seconds before a command that ended by itself is started again, doubled while there is no
        new step; `restart_hangs`: a command that hangs is killed and started again.

        Raises ConfigurationError for invalid LOSSGUARD_LIMITS, and for an invalid order key.
        """
        self.adapter, self.grace, self.restart_hangs = adapter, grace, restart_hangs
        self._command, self._folder = list(command), folder
        history = History() if run_folder is None else History.read(run_folder)
        self._is_new = not history.num_segments
        self._state = RestartState.read(folder, history)
        self.ledger = Ledger(history.skips)
        self.budget = RestartBudget(max_restarts, backoff)
        self._hang = HangDetector()
        self._stop: Stop | None = None
        self._stacks: threading.Thread | None = None
        self._list_at = 0.0
        self._newest_saved = 0  # that of the checkpoint to resume from, as of the last look
        self._started_from: int | None = None  # the checkpoint of the present child
        self._best_step = -1  # since the last rollback
        self._best_before = -1  # the same when the present child began
        self._earlier: dict[int, float] = {}  # checkpoints that were there before a new run: step -> time
        self._begun_at: int | None = None  # the first step that was seen of the run
        if not self._is_new:
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # missing or damaged
                earlier = json.loads((folder / EARLIER_FILE).read_bytes())
                self._begun_at = earlier["begun_at"]
                self._earlier = {int(step): saved_at for step, saved_at in earlier["checkpoints"].items()}
        self._passed_over: set[int] = set()  # checkpoints of a second start in a row without a new step
        self._log_once = LogOnce()
        self.order_limits = LimitsInForce(Run(id=""))
        """The limits of orders, and whether any order is carried out now."""
        self._inbox = OrderInbox(
            *(self.order_limits, Ranks()),
            step=self._step,
            until=lambda: self.order_limits.run.planned_steps,
            handlers={OrderKind.ROLLBACK: self._take},
            problem_with=lambda order: None if adapter.can_skip or order.skip_from is None else NO_SKIP,
        )

    # What the launcher asks

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    def first(self, begin_run: Callable[[], Run | None]) -> Restart | None:
        """Return how the command is started when no child of an earlier launcher lives."""
        if self._state.order is not None and (run := begin_run()) is not None:
            self._announce(run)
            return self._roll_back(run)
        if self._state.discarded:  # an earlier launcher may have been killed before it could say what is gone
            self._state = self._state.written_anew(self._gone())
        if not self._is_new:
            return self._restart(self._newest())
        with suppress(ConfigurationError, OSError):  # said once the run is announced
            self._earlier = {step: self._saved_at(step) for step in self._whole()}
        if self._earlier:  # perhaps of another training
            logger.warning(
                "%s holds %s already, the newest of step %s: those beyond the step at which this run begins are not "
                "loaded, unless it writes them anew",
                *(self.adapter.folder, plural(len(self._earlier), "checkpoint"), max(self._earlier)),
            )
            self._save()
        return self._restart(None)

    def batch_of(self, step: int) -> int | None:
        return self.adapter.batch_of(step, self.ledger)

    def watch(self, child: Child, run: Run | None) -> None:
        now = time.monotonic()
        self._hang.look(now)
        if run is not None and run is not self.order_limits.run:
            self._announce(run)
        if self._stop is not None:
            self._stop.advance(now)
        elif self._state.order is not None:  # kept by a launcher that was killed
            self._begin_to_stop(child, now)
        elif run is not None:
            self._observe(run, now)
            if self._inbox.has_order() and self._inbox.carry_out():
                self._begin_to_stop(child, now)
            else:
                self._look_for_hang(child, run, now)

    def give_up(self, run: Run | None, why: str) -> None:
        if self._state.order is not None:
            self._state = self._state.refused()
            self._save()
        if run is not None:
            run.cannot_roll_back(why)

    def after(self, end: ChildEnd, run: Run | None) -> Restart | None:
        if run is not None:
            self._list_at = 0.0
            self._observe(run, time.monotonic())
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.finish()
        if end.asked_to_stop:
            return None  # an order that was kept is executed by the next launcher
        try:
            if self._state.order is not None and run is not None:
                return self._roll_back(run)
            if stop is None and end.is_fine:
                return None
            return self._after_crash(end, run, hung=stop is not None)
        except (ConfigurationError, OSError) as problem:
            logger.warning("the command is not started again: %s", problem)
            return None

    # Orders

    def _announce(self, run: Run) -> None:
        """Before the first order: what this command can do."""
        self.order_limits.attach(run)
        if not self.adapter.can_skip:
            run.cannot_skip()
            self._log_once.warn_once(
                "skip", f"the adapter {self.adapter.name} cannot leave batches out: the run is only rewound"
            )
        self._report_restorable(run)
        run.can_roll_back()

    def _report_restorable(self, run: Run) -> None:
        try:
            run.set_restorable(self._loadable())
            self._newest_saved = self._newest() or 0
        except (ConfigurationError, OSError) as problem:
            self._log_once.warn_once("list", f"there is nothing to roll back to: {problem}")

    def _take(self, order: Order) -> bool:
        """Keep a rollback, for which the command is to be stopped; return False if it is refused."""
        if (refused := self._keep(order)) is not None:
            self._inbox.refuse(order, *refused)
            return False
        logger.warning("the command is stopped, to be started again at step %s", order.rewind_to)
        return True

    def _keep(self, order: Order) -> tuple[Refusal | None, str] | None:
        """Keep the order for whoever starts the command. Return why it cannot be executed, or None."""
        try:
            steps = self._loadable()
        except (ConfigurationError, OSError) as problem:
            return None, str(problem)
        oldest = self.order_limits.now.oldest_step(self._step(order))
        state = self._state.ordered(order, steps, oldest_step=oldest)
        if (refused := state.refusal(steps)) is not None:
            return refused
        try:
            state.save(self._folder)
        except OSError as problem:
            return None, f"it cannot be kept for the restart: {self._folder} cannot be written ({problem.strerror})"
        self._state = state
        return None

    def _begin_to_stop(self, child: Child, now: float) -> None:
        self._stop = Stop(child, now, grace=0.0 if self.adapter.saves_when_stopped else self.grace)

    def _roll_back(self, run: Run) -> Restart:
        """The command has ended: execute the order that was kept, and report it. Raises ConfigurationError, OSError."""
        order = self._state.order
        assert order is not None
        steps = self._loadable()
        step = max(steps, default=None)
        is_lost = self._inbox.is_lost(order)
        refused = None if is_lost else self._inbox.refusal_now(order, self._step(order)) or self._state.refusal(steps)
        if step is None or is_lost or refused is not None:
            self._state = self._state.refused()
            self._save()
            if refused is not None:
                self._inbox.refuse(order, *refused)
            return self._restart(self._newest())
        try:
            if moved := self.adapter.discard_after(step - self.adapter.first_step):
                later = plural(len(moved), "later checkpoint")
                logger.warning("%s %s moved to %s", later, form(len(moved), "was", "were"), moved[0].parent)
        except OSError as problem:
            self._log_once.warn(f"checkpoints after step {step} could not be moved aside: {problem}")
        if order.skip_from is not None and order.skip_to is not None:
            self.ledger.add(Skip(order.skip_from, order.skip_to, order.reason))
        run.open_segment(step, SegmentReason.ROLLBACK, order, _applied(order, step))
        self.order_limits.count_rollback()
        run.history.answered.add(order.key)
        self._state = self._state.executed()
        self._state = self._state.written_anew(self._gone())
        self._save()
        self._best_step, self._newest_saved = -1, step
        logger.warning(order.describe(step))
        return self._restart(step, opens_segment=False)

    def _gone(self) -> frozenset[int]:
        """Return the discarded checkpoints that are no longer where the framework looks."""
        return self._state.discarded.difference(self._whole())

    # Starts

    def _restart(self, step: int | None, *, opens_segment: bool = True) -> Restart:
        """Start the command from the checkpoint before `step`; None: from its beginning."""
        first, skipped = self.adapter.first_step, self.ledger.skips
        arguments, variables = ([], {}) if step is None else self.adapter.resume(step - first, skipped)
        skips = skips_in_environment(skipped, self._folder / SKIPS_FILE) if self.adapter.can_skip else {}
        self._started_from, self._best_before = step, self._best_step
        self._hang.begin(self.order_limits.run.newest_step)
        return Restart(
            command=[*self._command, *arguments], environment={**skips, **variables}, opens_segment=opens_segment
        )

    def _whole(self) -> list[int]:
        """The first steps after the whole checkpoints, as the run counts them. Raises ConfigurationError, OSError."""
        return sorted(number + self.adapter.first_step for number in self.adapter.checkpoints())

    def _loadable(self) -> list[int]:
        """Steps of the whole checkpoints that may be loaded. Raises ConfigurationError, OSError."""
        return [step for step in self._whole() if self._state.may_load(step) and not self._is_of_another(step)]

    def _is_of_another(self, step: int) -> bool:
        """Return True for a checkpoint of before the run that it cannot have begun from. Raises OSError."""
        begins_behind = self._begun_at is not None and step <= self._begun_at
        return step in self._earlier and not begins_behind and self._earlier[step] == self._saved_at(step)

    def _saved_at(self, step: int) -> float:
        return self.adapter.saved_at(step - self.adapter.first_step)

    def _newest(self) -> int | None:
        """Step of the checkpoint to resume from. Raises ConfigurationError, OSError."""
        return max((each for each in self._loadable() if each not in self._passed_over), default=None)

    def _step(self, order: Order) -> int:
        """The step that comes next, as far as the command has logged or saved; before it has, that of the order."""
        run = self.order_limits.run
        newest = order.step if run.newest_step is None else run.newest_step
        logged = order.rewind_to or 0 if newest is None else newest + 1
        return max(logged, self._newest_saved)

    def _save(self) -> None:
        try:
            self._state.save(self._folder)
            if self._earlier:
                body = {"checkpoints": self._earlier, "begun_at": self._begun_at}
                write_at_once(self._folder / EARLIER_FILE, json.dumps(body))
        except OSError as problem:
            self._log_once.warn_once("save", f"{self._folder} cannot be written ({problem.strerror})")

    # Crashes and hangs

    def _observe(self, run: Run, now: float) -> None:
        step = run.newest_step
        if step is not None:
            if self._begun_at is None:
                self._begun_at = step
                self._save()
            self._best_step = max(self._best_step, step)
            self._hang.observe(step, now)
        if now >= self._list_at:
            self._list_at = now + LIST_SECONDS
            self._report_restorable(run)

    def _after_crash(self, end: ChildEnd, run: Run | None, *, hung: bool) -> Restart | None:
        """The command ended by itself, or hung and was killed: start it again, as long as the budget lasts."""
        made_progress = self._best_step > self._best_before
        refusal = self.budget.refusal(time.monotonic(), made_progress=made_progress)
        what = "it hung" if hung else f"it ended with {end}"
        if refusal is not None:
            logger.warning("the command is not started again: %s, and %s", what, refusal)
            return None
        if self.budget.num_fruitless == 2 and self._started_from is not None:
            self._passed_over.add(self._started_from)  # damaged, perhaps
        pause = self.budget.pause()
        logger.warning("the command is started again in %.1f s: %s", pause, what)
        deadline = time.monotonic() + pause
        while (left := deadline - time.monotonic()) > 0:
            if run is not None and self._inbox.carry_out():
                return self._roll_back(run)
            if signal.sigtimedwait(STOPPING, min(left, 0.1)) is not None:
                self.is_interrupted = True
                return None
        return self._restart(self._newest())

    def _look_for_hang(self, child: Child, run: Run, now: float) -> None:
        silent = self._hang.silent_for(now)
        if silent is None:
            self._stacks = None
            return
        if self._stacks is None:
            directory = run.directory or self._folder
            file = directory / f"stacks-{time.strftime('%Y%m%d-%H%M%S')}.txt"
            pids = [child.pid, *(each.pid for each in descendants(child.pid))]

            def note() -> None:
                where = write_stacks(pids, file)
                logger.warning("the command has logged no step for %.0f s and seems to hang: %s", silent, where)

            self._stacks = threading.Thread(target=note, daemon=True)
            self._stacks.start()
        elif not self._stacks.is_alive() and self.restart_hangs:
            self._begin_to_stop(child, now)


def _applied(order: Order, step: int) -> dict[str, Any]:
    """Return the fields that the spool records: a launched command takes neither a learning rate nor remedies."""
    applied = order.applied_at(step)
    ignored = [f"lr_scale={order.lr_scale:g}"] if applied.pop("lr_scale", None) is not None else []
    ignored += order.remedies
    return applied | ({"detail": f"a launched command cannot apply {', '.join(ignored)}"} if ignored else {})
