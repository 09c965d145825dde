"""The thread that delivers a run's spools: earlier sessions first, then the living one for as long as it grows."""

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
from lossguard.spooling.spool import acknowledged, spools_in

INTERVAL = 0.1
"""Seconds between two looks at the spool."""
HEARTBEAT = 2.0
"""Seconds without a report after which a heartbeat asks for orders."""
MAX_BACKOFF = 30.0
"""Seconds."""


class Sender(threading.Thread):
    def __init__(
        self,
        directory: Path,
        living: Path | None,
        client: Client,
        receive: Callable[[list[Order]], None],
        notices: LogOnce,
    ) -> None:
        """`living` is the spool of this session, None to deliver what lies in `directory` and end."""
        super().__init__(name="lossguard-sender", daemon=True)
        self._directory = directory
        self._living = living
        self._client = client
        self._receive = receive
        self._notices = notices
        self._closing = threading.Event()  # deliver what is left, then end
        self._abandoned = threading.Event()  # end at once
        if living is None:
            self._closing.set()
        self._random = random.Random()  # never the global one: the loop's replays must not depend on our retries
        self.failures = 0
        self._last_exchange = time.monotonic()
        self.delivered = False
        """Whether the thread ended with everything delivered."""
        self.problem = ""
        """Why it is not, in a few words."""

    def close(self, timeout: float) -> None:
        """Deliver what is left, at most `timeout` seconds; say what stays behind."""
        self._closing.set()
        self.join(timeout)
        self._abandoned.set()
        if not self.delivered:
            self._notices.say(
                "undelivered",
                f"not everything was delivered to {self._client.url}; it stays in the spool. "
                f"Deliver it later with: LOSSGUARD_URL={quote(self._client.url)} "
                f"python -m lossguard sync {quote(str(self._directory))}",
            )

    def run(self) -> None:
        deliveries: list[Delivery] = []
        try:
            deliveries = self._open(spools_in(self._directory))
            self._work(deliveries)
        except OSError as problem:  # a thread that dies without a word would look like a quiet run
            self.problem = f"{self._directory} cannot be used ({problem.strerror})"
            self._notices.say("sender", f"{self.problem}: nothing is delivered; steps stay in the spool")
        finally:
            for delivery in deliveries:
                delivery.close()
            self._client.close()

    def _open(self, paths: list[Path]) -> list[Delivery]:
        """Deliveries of the spools that are not yet delivered, the living one last."""
        paths = [path for path in paths if path != self._living and acknowledged(path) < path.stat().st_size]
        paths += [self._living] if self._living else []
        return [Delivery(path, self._client, self._receive, self._notices) for path in paths]

    def _work(self, deliveries: list[Delivery]) -> None:
        while not self._abandoned.is_set():
            try:
                moved = any(delivery.advance() for delivery in deliveries)
                if not moved and self._closing.is_set():
                    self.problem = next((delivery.refused for delivery in deliveries if delivery.refused), "")
                    self.delivered = not self.problem
                    return
                if moved:
                    self._exchanged()
                elif time.monotonic() - self._last_exchange >= HEARTBEAT:
                    deliveries[-1].heartbeat()
                    self._exchanged()
                self._closing.wait(INTERVAL)
            except Unauthorised as problem:
                self._later(problem)
                if self._closing.is_set():
                    return
            except Exception as problem:  # also what no one thought of: a strange answer must not end the delivery
                if isinstance(problem, NotFound):  # it lost the run: bring everything again
                    self._start_over(deliveries)
                self._later(problem)

    def _start_over(self, deliveries: list[Delivery]) -> None:
        while deliveries:
            deliveries.pop().close()
        for path in spools_in(self._directory):
            path.with_suffix(".acknowledged").unlink(missing_ok=True)
        deliveries += self._open(spools_in(self._directory))

    def _exchanged(self) -> None:
        self._last_exchange = time.monotonic()
        self.failures = 0
        if self._notices.forget("unreachable"):
            self._notices.say(f"again {self._last_exchange}", f"the collector at {self._client.url} answers again")

    def _later(self, problem: Exception) -> None:
        """Say once what is wrong, then wait: longer after each failure, with jitter, and as the collector asks."""
        self.problem = str(problem) if isinstance(problem, CollectorError) else f"{type(problem).__name__}: {problem}"
        self._notices.say("unreachable", f"{self.problem}; steps stay in the spool and are sent later")
        self.failures += 1
        closing = self._closing.is_set()  # then there is little time left, and it is for trying
        wait = min(INTERVAL * 2**self.failures, 1.0 if closing else MAX_BACKOFF) * self._random.uniform(0.5, 1.5)
        (self._abandoned if closing else self._closing).wait(max(wait, getattr(problem, "retry_after", 0.0)))
