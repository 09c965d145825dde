"""The inbox of a run's orders, and the limits as they are now: of the code, the environment and a file.

The strictest of all counts. In the run's folder (`.lossguard/PROJECT/RUN`) two files are looked at between any two
steps: `limits`, in the form of LOSSGUARD_LIMITS, and `no-orders`, whose existence ends all obedience. Rank 0 looks; the
others do what it does. A guard, the restart contract and the launcher take their orders from the same inbox.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lossguard.run.ranks import Ranks, RankState
from lossguard.run.run import Run
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.limits import Limits, Refused
from lossguard.vocabulary.orders import Order, problem_with, read_key
from lossguard.vocabulary.states import OrderKind, OrderMode, Refusal, SegmentReason

VARIABLE = "LOSSGUARD_LIMITS"
LIMITS_FILE, KILL_FILE = "limits", "no-orders"
DAY = 86_400.0
CLOCK_TOLERANCE = 300.0
"""Seconds by which the clocks of collector and trainer may differ."""
MAX_FILE_BYTES = 10_000
CANNOT = "an order of the kind {} cannot be carried out here: roll the run back, or stop it"
HOLD_POLL_SECONDS = 0.05
"""Pause between two looks at the inbox while a run is held."""


class LimitsInForce:
    """The limits, and whether orders are carried out now. Never raises once made, and never waits for the network."""

    def __init__(
        self,
        run: Run,
        limits: Limits | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`limits`: those of the code. Raises ConfigurationError for invalid ones, and for an invalid order key."""
        if limits is not None and not isinstance(limits, Limits):
            raise ConfigurationError(f"limits={limits!r:.100} must be lossguard.Limits(..)")
        env = os.environ if environment is None else environment
        self._given = (limits or Limits()) & Limits.parse(env.get(VARIABLE) or "", VARIABLE)
        self._key = read_key(env)
        self._clock = clock
        self._log_once = LogOnce(quiet=run.rank > 0)
        self._file: tuple[int, ...] | None = None  # of the limits, as it was read
        self._observing = ""  # why nothing is obeyed, in the words of `observe`
        self._announced: tuple[Limits, bool] | None = None  # what the collector knows
        self.stopped = ""
        """Reason why no order is carried out now, as a clause; empty if orders are."""
        self.now = self._given
        """The limits as of the last `update`."""
        self.attach(run)

    def attach(self, run: Run) -> None:
        """Look into the folder of this run, and tell its collector of the limits."""
        self.run = run
        folder = run.directory
        self._limits_path = None if folder is None else os.fspath(folder / LIMITS_FILE)
        self._kill_path = None if folder is None else os.fspath(folder / KILL_FILE)
        self._announced = None
        self.update()

    def observe(self, why: str = "guard.observe() was called") -> None:
        """Carry out no order in this process from now on."""
        self._observing = why

    def update(self) -> str:
        """Look at the files; return why no order is carried out now. About 4 microseconds where nothing changed."""
        problem = self._update_file()
        stopped = self._observing or self._killed() or problem
        if not stopped and self.now.mode is OrderMode.OBSERVE:
            stopped = "mode=observe"
        if stopped != self.stopped:
            self.stopped = stopped
            self._log_once.warn(f"no order is carried out: {stopped}" if stopped else "orders are carried out again")
        shown = self.now, bool(stopped)
        if shown != self._announced:
            self._announced = shown
            limits = self.now & Limits(mode=OrderMode.OBSERVE) if stopped else self.now
            self.run.has_limits(limits.to_text())
        return stopped

    def refusal(self, order: Order, *, step: int, until: int | None) -> Refused | None:
        """Return why the run, before `step` of `until`, does not carry out `order`; None if it does."""
        self.update()
        if self._key is not None and (why := problem_with(order.signature, order.signed, self.run.id, self._key)):
            return Refusal.UNTRUSTED, why
        expired = _expired(order, step, self._clock())
        if order.kind is OrderKind.RELEASE:
            return None if expired is None else (Refusal.STALE, expired)
        if not self.stopped and (why := expired or self.run.outdated(order)) is not None:
            return Refusal.STALE, why
        return self.would_refuse(order, step=step, until=until)

    def would_refuse(self, order: Order, *, step: int, until: int | None) -> Refused | None:
        """Return why an order that a person approves now would not be carried out; None if it would."""
        if self.stopped:
            return Refusal.OBSERVES, f"the trainer carries out no orders: {self.stopped}"
        if order.kind is OrderKind.ROLLBACK and order.rewind_to is not None and order.rewind_to > step:
            return Refusal.STALE, f"it goes back to step {order.rewind_to}, and the run is before it, at step {step}"
        a_day_ago = self._clock() - DAY
        num_rollbacks = sum(at > a_day_ago for at in self.run.history.rollback_times)
        return self.now.refusal(order, step=step, until=until, num_rollbacks=num_rollbacks)

    def count_rollback(self) -> None:
        """Note that a rollback was just carried out."""
        self.run.history.rollback_times.append(self._clock())

    def _killed(self) -> str:
        try:
            return "" if _found(self._kill_path) is None else f"{self._kill_path} exists"
        except OSError as problem:
            return f"{self._kill_path} cannot be looked at ({problem.strerror})"

    def _update_file(self) -> str:
        """Read the file of the limits if it is another one than before. Returns why it cannot be read."""
        try:
            found = _found(self._limits_path)
        except OSError as problem:
            return f"{self._limits_path} cannot be read ({problem.strerror})"
        if self._limits_path is None or found is None:
            self._file, self.now = None, self._given
            return ""
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        if version == self._file:
            return ""
        try:
            if found.st_size > MAX_FILE_BYTES:
                return f"{self._limits_path} may have at most {MAX_FILE_BYTES} bytes"
            in_file = Limits.parse(Path(self._limits_path).read_text("utf-8"), self._limits_path)
        except UnicodeDecodeError:
            return f"{self._limits_path} is no text in UTF-8"
        except (OSError, ConfigurationError) as problem:
            return str(problem)  # it is read again at the next boundary
        self._file, self.now = version, self._given & in_file
        return ""


class OrderInbox:
    """The orders of a run that may be carried out now; all others are refused. Rank 0's count for all ranks."""

    def __init__(
        self,
        limits: LimitsInForce,
        ranks: Ranks,
        *,
        step: Callable[[Order], int],
        until: Callable[[], int | None],
        handlers: Mapping[OrderKind, Callable[[Order], bool | None]],
        problem_with: Callable[[Order], str | None] = lambda order: None,
    ) -> None:
        """`step`: the step that comes next when an order is judged; `until`: the planned steps; `handlers`: what
        carries out an order of each kind (True: a hold is over), orders of other kinds are refused;
        `problem_with`: why the run cannot carry out an order, if it cannot."""
        self._limits, self._ranks = limits, ranks
        self._step, self._until, self._problem_with = step, until, problem_with
        self._handlers = {OrderKind.RELEASE: self._release, **handlers}
        self._taken: Order | None = None  # and not yet known to all ranks
        self._log_once = LogOnce(quiet=limits.run.rank > 0)

    def has_order(self) -> bool:
        """Look at the limits and into the inbox of this rank: True if an order waits."""
        self._limits.update()
        return self.peek() is not None

    def peek(self) -> Order | None:
        """Return this rank's next order, which stays in the inbox."""
        run = self._limits.run
        while self._taken is None and (order := run.take_order()) is not None:
            if order.key not in run.history.answered:  # by an earlier process
                self._taken = order
        return self._taken

    def next(self) -> Order | None:
        """Return rank 0's next order that may be carried out, on all ranks, and refuse those that may not."""
        while (order := self.peek()) is not None:
            self._taken = None
            refused = self._limits.refusal(order, step=self._step(order), until=self._until())
            if refused is not None:
                self.refuse(order, *refused)
            elif order.kind not in self._handlers:
                self.refuse(order, None, CANNOT.format(order.kind))
            elif order.kind is OrderKind.ROLLBACK and order.rewind_to is None:
                self.refuse(order, None, "the order names no step to rewind to")
            elif (why := self._problem_with(order)) is not None:
                self.refuse(order, None, why)
            else:
                break
        return self._ranks.broadcast(order)

    def carry_out(self) -> bool:
        """Carry out the orders that wait, up to the first whose handler returns True; False: none waits any more."""
        while (order := self.next()) is not None:
            if self._handlers[order.kind](order):
                return True
        return False

    def refuse(self, order: Order, refusal: Refusal | None, why: str) -> None:
        """Answer that the order is not carried out, and warn of it."""
        self._limits.run.refuse(order, why, refusal)
        self._log_once.warn(f"an order was refused: {why}")

    def is_lost(self, order: Order) -> bool:
        """True if the order does not count any more: then it is given back."""
        lost = self._ranks.broadcast(self._limits.run.revoked(order))
        if lost is not None:
            self._limits.run.give_back(order)
            self._log_once.warn(f"an order was not carried out: {lost}")
        return lost is not None

    def refusal_now(self, order: Order, step: int) -> Refused | None:
        """Judge an order of before `step` once more, on all ranks, after what may have taken long."""
        return self._ranks.broadcast(self._limits.refusal(order, step=step, until=self._until()))

    def hold(self, held: Order, exchange: Callable[[], RankState]) -> bool:
        """Wait until an order ends the hold, or until no order is carried out any more. Return False for a signal.

        `exchange` makes the orders of rank 0 known to all ranks.
        """
        run, why = self._limits.run, f": {held.reason}" if held.reason else ""
        run.accept(held)
        self._log_once.warn(f"held before step {self._step(held)} until it is released or rolled back{why}")
        while True:
            combined = exchange()
            if combined.signal:
                return False
            if self._ranks.broadcast(self._limits.stopped):
                run.open_segment(self._step(held), SegmentReason.RESUME)  # so the collector knows that the hold is over
                return True
            order = self.next() if combined.order else None
            if order is None:
                time.sleep(HOLD_POLL_SECONDS)
            elif order.kind in (OrderKind.HOLD, OrderKind.RELEASE):
                run.accept(order)
                if order.kind is OrderKind.RELEASE:
                    return True
            elif self._handlers[order.kind](order):
                return True

    def _release(self, order: Order) -> None:
        self._limits.run.accept(order, "the run was not held")


def _found(path: str | None) -> os.stat_result | None:
    """Return what is known of a file; None where there is none. Raises OSError."""
    try:
        return None if path is None else os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _expired(order: Order, step: int, now: float) -> str | None:
    if order.expires_step is not None and step > order.expires_step:
        return f"it expired at step {order.expires_step}, and the run is at step {step}"
    if order.expires_at is not None and now > order.expires_at + CLOCK_TOLERANCE:
        late = now - order.expires_at
        return f"it expired {late:.0f} s ago by this machine's clock: it came too late, or one of the clocks is wrong"
    return None
