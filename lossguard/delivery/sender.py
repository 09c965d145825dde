"""The thread that delivers a run's spools: those of earlier sessions first, then the current one while it grows."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from lossguard.delivery.client import Client
from lossguard.delivery.spool_delivery import Delivery
from lossguard.errors import CollectorError, NotFound, Unauthorised
from lossguard.log_once import LogOnce
from lossguard.orders import Order
from lossguard.spooling.set_aside import SetAside
from lossguard.spooling.spool import spools_in
from lossguard.spooling.spool_reader import acknowledged

POLL_SECONDS = 0.1
"""Pause between two looks at the spool."""
HEARTBEAT = 2.0
"""Seconds without a report after which a heartbeat asks for orders."""
MAX_BACKOFF = 30.0
"""Seconds."""
MAX_BACKOFF_AT_END = 1.0
"""Seconds; when the run is over, the time that is left is used for attempts."""


class Sender(threading.Thread):
    """Delivers until everything is delivered and `close` was called."""

    def __init__(
        self,
        directory: Path,
        current: Path | None,
        client: Client,
        receive: Callable[[list[Order]], None],
        log_once: LogOnce,
        *,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        """`current` is the spool of this session; None: deliver the spools in `directory` and end.

        `receive` is called with all open orders, at least every `heartbeat` seconds while the collector answers.
        """
        super().__init__(name="lossguard-sender", daemon=True)
        self._directory = directory
        self._current = current
        self._client = client
        self._receive = receive
        self._log_once = log_once
        self._heartbeat = heartbeat
        self._closing = threading.Event()  # deliver what is left, then end
        self._abandoned = threading.Event()  # end at once
        if current is None:
            self._closing.set()
        self._random = random.Random()  # never the global one: a replay must not depend on our retries
        self.num_failures = 0
        """Failed attempts in a row."""
        self._last_exchange_at = time.monotonic()
        self.set_aside = SetAside(directory)
        """Damaged and rejected lines, which are not delivered."""
        self.delivered = False
        """Whether the thread ended with everything delivered but what is set aside or incomplete."""
        self.incomplete: list[str] = []
        """Spools whose last line is incomplete, with the bytes of that line, in words."""
        self.problem = ""
        """Why the delivery is not complete, in a few words."""

    def close(self, timeout: float) -> None:
        """Deliver the rest within `timeout` seconds; log how to deliver later what is left then."""
        self._closing.set()
        self.join(timeout)
        self._abandoned.set()
        if not self.delivered:
            self._log_once.warn_once(
                "undelivered",
                f"not everything was delivered to {self._client.url}; the rest stays in the spool. "
                f"Deliver it later with: LOSSGUARD_URL={quote(self._client.url)} "
                f"python -m lossguard sync {quote(str(self._directory))}",
            )

    def run(self) -> None:
        deliveries: list[Delivery] = []
        try:
            deliveries = self._open(spools_in(self._directory))
            self._deliver(deliveries)
        except OSError as problem:  # if the thread died without a message, the run would look quiet
            self.problem = f"{self._directory} cannot be used ({problem.strerror})"
            self._log_once.warn_once("sender", f"{self.problem}: nothing is delivered; steps stay in the spool")
        finally:
            for delivery in deliveries:
                delivery.close()
            self._client.close()

    def _open(self, paths: list[Path]) -> list[Delivery]:
        """Deliveries of the spools that are not completely delivered, the current one last."""
        paths = [path for path in paths if path != self._current and acknowledged(path) < path.stat().st_size]
        paths += [self._current] if self._current else []
        return [Delivery(path, self._client, self._receive, self._log_once, self.set_aside) for path in paths]

    def _deliver(self, deliveries: list[Delivery]) -> None:
        while not self._abandoned.is_set():
            try:
                advanced = any(delivery.advance() for delivery in deliveries)
                if not advanced and self._closing.is_set():
                    self._conclude(deliveries)
                    return
                if advanced:
                    self._note_exchange()
                elif time.monotonic() - self._last_exchange_at >= self._heartbeat:
                    deliveries[-1].heartbeat()
                    self._note_exchange()
                self._closing.wait(POLL_SECONDS)
            except Unauthorised as problem:
                self._back_off(problem)
                if self._closing.is_set():
                    return
            except Exception as problem:  # an unexpected error, too, must not end the delivery
                if isinstance(problem, NotFound):  # the collector lost the run
                    self._start_over(deliveries)
                self._back_off(problem)

    def _conclude(self, deliveries: list[Delivery]) -> None:
        """Nothing is left that could be delivered."""
        self.problem = next((delivery.refused for delivery in deliveries if delivery.refused), "")
        self.delivered = not self.problem
        self.incomplete = [words for delivery in deliveries if (words := delivery.incomplete_line())]
        for words in self.incomplete:
            self._log_once.warn_once(f"incomplete {words}", f"{words} were never written completely; they stay there")

    def _start_over(self, deliveries: list[Delivery]) -> None:
        """Forget what was acknowledged, so that everything is delivered again."""
        while deliveries:
            deliveries.pop().close()
        for path in spools_in(self._directory):
            path.with_suffix(".acknowledged").unlink(missing_ok=True)
        deliveries += self._open(spools_in(self._directory))

    def _note_exchange(self) -> None:
        self._last_exchange_at = time.monotonic()
        self.num_failures = 0
        if self._log_once.reset("unreachable"):
            self._log_once.warn(f"the collector at {self._client.url} answers again")

    def _back_off(self, problem: Exception) -> None:
        """Log the problem once, then wait: exponentially longer, with jitter, and as long as the collector asks."""
        self.problem = str(problem) if isinstance(problem, CollectorError) else f"{type(problem).__name__}: {problem}"
        self._log_once.warn_once("unreachable", f"{self.problem}; steps stay in the spool and are sent later")
        self.num_failures += 1
        closing = self._closing.is_set()
        longest = MAX_BACKOFF_AT_END if closing else MAX_BACKOFF
        wait = min(POLL_SECONDS * 2**self.num_failures, longest) * self._random.uniform(0.5, 1.5)
        (self._abandoned if closing else self._closing).wait(max(wait, getattr(problem, "retry_after", 0.0)))
