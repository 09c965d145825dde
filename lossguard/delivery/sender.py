"""The thread that delivers a run's spools: those of earlier sessions first, then the current one while it grows."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote

from lossguard.client.client import Client
from lossguard.delivery.hardware import HardwareSampler
from lossguard.delivery.spool_delivery import Delivery
from lossguard.spool.archive import Keep, deliver_again, trim
from lossguard.spool.lines import OtherVersion
from lossguard.spool.set_aside import SetAside
from lossguard.spool.spool import session_of, spools_in
from lossguard.spool.spool_reader import is_delivered
from lossguard.spool.writer import Writer
from lossguard.vocabulary.errors import CollectorError, LogOnce, NotFound, Unauthorised
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.wire import Question

PAUSE_SECONDS = 0.1
"""Pause after a report: the steps of a fast loop gather in the next one."""
POLL_SECONDS = 0.1
"""Pause between two looks at a spool that nothing is known to have been added to."""
HEARTBEAT = 2.0
"""Seconds without a report after which a heartbeat asks for orders."""
TRIM_SECONDS = 5.0
"""Pause between two looks for delivered spools that can be trimmed."""
MAX_BACKOFF = 30.0
"""Seconds."""
MAX_BACKOFF_AT_END = 1.0
"""Seconds; when the run is over, the time that is left is used for attempts."""


class Inbox:
    """The open orders of a run, and what the collector asks: as of its newest answer. A sender fills it."""

    def __init__(self, answered: Iterable[str | int] = ()) -> None:
        """`answered`: keys of the orders that earlier processes have answered."""
        self.orders: tuple[Order, ...] = ()
        self.question: Question | None = None
        """The question that the collector has before a person approves a rollback, if any."""
        self._valid_until = 0.0  # by the monotonic clock: the lease may have gone to another process after it
        self._lock = threading.Lock()
        self._taken = set(answered)
        self._unanswered: dict[str | int, Order] = {}  # of those that were taken
        self._refuse: Callable[[Order], None] | None = None

    def receive(self, orders: Sequence[Order], valid_until: float = math.inf, question: Question | None = None) -> None:
        """Replace the orders by those that are open now, to be carried out until then, by the monotonic clock."""
        self.orders, self.question, self._valid_until = tuple(orders), question, valid_until
        self._refuse_open()

    def refuse_with(self, refuse: Callable[[Order], None] | None) -> None:
        """Have `refuse` called for each order that is open now or later, as nobody carries it out; None: no longer."""
        self._refuse = refuse
        self._refuse_open()

    def _refuse_open(self) -> None:
        if self._refuse is None:
            return
        with self._lock:
            waiting = [order for order in self.orders if order.key not in self._taken]
            self._taken.update(order.key for order in waiting)
            waiting += self._unanswered.values()
        for order in waiting:
            self._refuse(order)

    def take(self) -> Order | None:
        """Return the next order that was not taken yet; None while another process may have the lease."""
        if not self.orders or time.monotonic() >= self._valid_until:
            return None
        with self._lock:
            order = next((order for order in self.orders if order.key not in self._taken), None)
            if order is not None:
                self._taken.add(order.key)
                self._unanswered[order.key] = order
            return order

    def give_back(self, order: Order) -> None:
        """`order` was taken and is not carried out: it may be taken again."""
        with self._lock:
            self._taken.discard(order.key)
            self._unanswered.pop(order.key, None)

    def settle(self, order: Order) -> None:
        """`order` is answered, or carried out."""
        self._unanswered.pop(order.key, None)

    def revoked(self, order: Order, *, has_ended: bool) -> str | None:
        """Return why a taken order may no longer be carried out, as a clause."""
        valid_until, orders = self._valid_until, self.orders  # in this order: `receive` sets the time last
        if valid_until == 0.0:  # nothing has come yet: the order was kept by an earlier process
            return None
        if has_ended or time.monotonic() >= valid_until:
            return "the lease of the run ran out meanwhile"
        if all(each.key != order.key for each in orders):
            return "the collector has withdrawn it meanwhile"
        return None


class Sender(threading.Thread):
    """Delivers until everything is delivered and `close` was called."""

    def __init__(
        self,
        directory: Path,
        client: Client,
        log_once: LogOnce,
        writer: Writer | None = None,
        *,
        current: Path | None = None,
        inbox: Inbox | None = None,
        appended: threading.Event | None = None,
        heartbeat: float = HEARTBEAT,
        keep: Keep = Keep.ALL,
        hardware: HardwareSampler | None = None,
    ) -> None:
        """`writer` is this process, for the collector: only one process at a time gets the orders of a run. `current`
        is the spool of this session; None: deliver the spools in `directory` and end.

        `inbox` gets all open orders, at least every `heartbeat` seconds while the collector answers. `appended` is set
        after each line of the current spool, which then need not wait for the next look. `keep`: what stays of
        delivered spools. `hardware`: sampled in a thread of its own, which a driver may hold up.
        """
        super().__init__(name="lossguard-sender", daemon=True)
        self._directory, self._client, self._log_once, self._writer = directory, client, log_once, writer
        self._current, self._inbox, self._appended = current, inbox or Inbox(), appended or threading.Event()
        self._heartbeat, self._keep, self._hardware = heartbeat, keep, hardware
        self._send_hardware_at = 0.0  # by the monotonic clock
        self._path = directory  # the present spool, or the last one
        self._delivery: Delivery | None = None
        self._closing = threading.Event()  # deliver what is left, then end
        self._abandoned = threading.Event()  # end at once
        if current is None:
            self._closing.set()
        self._random = random.Random()  # never the global one: a replay must not depend on our retries
        self.num_failures = 0
        """Failed attempts in a row."""
        self._last_exchange_at = time.monotonic()
        self.set_aside = SetAside(directory, log_once)
        """Damaged and rejected lines, which are not delivered."""
        self.delivered = False
        """True if the thread ended with everything delivered but what is set aside or incomplete."""
        self.incomplete: list[str] = []
        """Spools whose last line is incomplete, with the bytes of that line, in words."""
        self._undeliverable = ""
        self.problem = ""
        """Reason why the delivery is not complete, in a few words."""

    def close(self, timeout: float) -> None:
        """Deliver the rest within `timeout` seconds; log how to deliver later what is left then."""
        self._closing.set()
        self._appended.set()  # it ends the pause
        self.join(timeout)
        self._abandoned.set()
        if not self.delivered:
            self._log_once.warn_once(
                "undelivered",
                f"not everything was delivered to {self._client.url}; the spool keeps the rest, to be delivered with:\n"
                f"  python -m lossguard sync --url {quote(self._client.url)} {quote(str(self._directory))}",
            )

    def run(self) -> None:
        if self._keep is not Keep.ALL:
            threading.Thread(target=self._trim_at_times, name="lossguard-trim", daemon=True).start()
        if self._hardware is not None:
            threading.Thread(target=self._sample_at_times, name="lossguard-hardware", daemon=True).start()
        try:
            self._deliver()
        except OSError as problem:  # if the thread died without a message, the run would look quiet
            self.problem = f"{self._directory} cannot be used ({problem.strerror})"
            self._log_once.warn_once("sender", f"{self.problem}: nothing is delivered; steps stay in the spool")
        finally:
            self._leave(is_done=False)
            self._client.close()

    def _deliver(self) -> None:
        while not self._abandoned.is_set():
            try:
                self._appended.clear()  # before the look: a line, or `close`, that comes after it ends the pause
                is_last = self._closing.is_set()  # before the look: the last lines are written before `close` is called
                advanced = self._advance()
                self._send_hardware()
                if not advanced and is_last:
                    self._leave()
                    self.problem = self._undeliverable
                    self.delivered = not self.problem
                    return
                if advanced:
                    self._note_exchange()
                elif self._delivery and time.monotonic() - self._last_exchange_at >= self._heartbeat:
                    self._delivery.heartbeat()
                    self._note_exchange()
                if advanced or (self._delivery is not None and self._delivery.refused):  # then no line changes that
                    self._closing.wait(PAUSE_SECONDS)
                else:
                    self._appended.wait(POLL_SECONDS)
            except Unauthorised as problem:
                self._back_off(problem)
                if self._closing.is_set():
                    return
            except Exception as problem:  # an unexpected error, too, must not end the delivery
                if isinstance(problem, OSError) and self._delivery and not self._is_current(self._delivery.path):
                    self._leave_out(self._delivery.path, problem)
                    continue
                if isinstance(problem, NotFound):  # the collector lost the run
                    self._start_over()
                self._back_off(problem)

    def _advance(self) -> bool:
        """Deliver what comes next, from the next spool when one is done. Returns False when nothing is left."""
        while True:
            following = self._following()  # before the look at this one
            if self._delivery is not None and self._delivery.advance():
                return True
            if following is None:
                return False
            self._leave()
            self._open(following)

    def _following(self) -> Path | None:
        """The next spool that is not delivered or that this session writes, oldest first; None if there is none."""
        own = self._current  # a run of this process may write a later session: this one is not over
        later = (path for path in spools_in(self._directory) if path > self._path)
        wanted = (
            path for path in later if self._is_current(path) or ((not own or path < own) and not is_delivered(path))
        )
        return next(wanted, None)

    def _send_hardware(self) -> None:
        """Raises no CollectorError: a report of steps or a heartbeat meets the same problem, and is sent again."""
        now = time.monotonic()
        if self._hardware is None or self._delivery is None or now < self._send_hardware_at:
            return
        if samples := self._hardware.waiting():
            self._send_hardware_at = now + self._hardware.interval  # if it fails too: steps come first
            with suppress(CollectorError):
                if self._delivery.send_hardware(samples):
                    self._hardware.sent(samples)

    def _open(self, path: Path) -> None:
        """Raises OSError when the current spool cannot be read; another one is left out."""
        try:
            receive = self._inbox.receive
            self._delivery = Delivery(path, self._client, receive, self._log_once, self.set_aside, self._writer)
        except (OtherVersion, OSError) as problem:
            if isinstance(problem, OSError) and self._is_current(path):
                raise
            self._leave_out(path, problem)
        self._path = path

    def _is_current(self, path: Path) -> bool:
        """Return True if this session writes or wrote the file: then it is tried until it can be read."""
        return self._current is not None and session_of(path)[0] == session_of(self._current)[0]

    def _leave_out(self, path: Path, problem: OSError | OtherVersion) -> None:
        """Go on with the next spool; another session tries this one again."""
        if self._delivery is not None:
            self._delivery.close()
            self._delivery = None
        reason = f"{path} cannot be read ({problem.strerror})" if isinstance(problem, OSError) else str(problem)
        self._undeliverable = reason
        self._log_once.warn_once(reason, reason)

    def _leave(self, *, is_done: bool = True) -> None:
        """Close a spool; if nothing more of it can be delivered (`is_done`), note why, should something be left."""
        delivery, self._delivery = self._delivery, None
        if delivery is None:
            return
        if delivery.refused:
            self._undeliverable = delivery.refused
        elif is_done and (words := delivery.incomplete_line()):
            self.incomplete.append(words)
            self._log_once.warn_once(f"incomplete {words}", f"{words} was never written completely; it stays there")
        delivery.close()

    def _start_over(self) -> None:
        """Forget what was acknowledged, so that everything is delivered again."""
        self._leave(is_done=False)
        self.incomplete.clear()
        try:
            deliver_again(self._directory)
        except OSError as problem:
            self._log_once.warn_once("start over", f"{self._directory} cannot be written ({problem.strerror})")
        self._path = self._directory

    def _trim_at_times(self) -> None:
        while not self._closing.wait(TRIM_SECONDS):
            try:
                for _ in trim(self._directory, self._keep):
                    if self._closing.is_set():
                        return
            except OSError as problem:
                self._log_once.warn_once("trim", f"{self._directory} cannot be trimmed ({problem.strerror})")

    def _sample_at_times(self) -> None:
        assert self._hardware is not None
        self._hardware.look()
        while not self._closing.wait(self._hardware.interval):
            self._hardware.look()

    def _note_exchange(self) -> None:
        self._last_exchange_at = time.monotonic()
        if self.num_failures and self._log_once.reset("unreachable"):
            self._log_once.warn(f"the collector at {self._client.url} answers again")
        self.num_failures = 0

    def _back_off(self, problem: Exception) -> None:
        """Log the problem once, then wait: exponentially longer, with jitter, and as long as the collector asks."""
        self.problem = str(problem) if isinstance(problem, CollectorError) else f"{type(problem).__name__}: {problem}"
        self._log_once.warn_once("unreachable", f"{self.problem}; steps stay in the spool and are sent later")
        self.num_failures += 1
        closing = self._closing.is_set()
        longest = MAX_BACKOFF_AT_END if closing else MAX_BACKOFF
        wait = min(POLL_SECONDS * 2**self.num_failures, longest) * self._random.uniform(0.5, 1.5)
        (self._abandoned if closing else self._closing).wait(max(wait, getattr(problem, "retry_after", 0.0)))
