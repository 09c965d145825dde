"""Watch of the collector: it is asked in a thread, at most once every few seconds, and only while pages ask."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from dashboard.operator_actions import collector_url
from lossguard import Client, CollectorError, ConfigurationError, Unauthorised
from lossguard.client.answers import reason_of

CHECK_SECONDS = 2.0
TIMEOUT_SECONDS = 3.0
RETRY_SECONDS = 0.5
"""Seconds after which a failed question is repeated: one lost answer is no outage."""

Ping = Callable[[str], str | None]
"""Asks the collector at an address; why it does not answer, as a clause, or None."""


@dataclass(frozen=True, slots=True)
class Outage:
    since: float
    """Unix seconds at which this was first noticed."""
    why: str


class CollectorWatch:
    """Remembers the answer of one collector. `outage` returns at once; a thread of its own asks."""

    def __init__(self, url: str, ping: Ping, clock: Callable[[], float] = time.time) -> None:
        self._url, self._ping, self._clock = url, ping, clock
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._asked_at = -float("inf")
        self._outage: Outage | None = None

    def outage(self) -> Outage | None:
        """Return the outage by the last answer; None while the collector answers, and before the first answer."""
        with self._lock:
            is_due = self._clock() - self._asked_at >= CHECK_SECONDS
            if is_due and self._asking is None:
                self._asking = threading.Thread(target=self._ask, name="collector-watch", daemon=True)
                self._asking.start()
            return self._outage

    def wait(self) -> None:
        """Wait for the answer that is awaited now."""
        asking = self._asking
        if asking is not None:
            asking.join()

    def _ask(self) -> None:
        why = self._ping(self._url)
        if why is not None and self._outage is None:
            time.sleep(RETRY_SECONDS)
            why = self._ping(self._url)
        with self._lock:
            now = self._clock()
            since = now if self._outage is None else self._outage.since
            self._outage = None if why is None else Outage(since, why)
            self._asked_at, self._asking = now, None


def ping(url: str) -> str | None:
    """Return the reason why no collector answers at `url`; None if one does."""
    try:
        with Client(url, timeout=TIMEOUT_SECONDS) as client:
            client.ping()
    except ConfigurationError as error:
        return f"its address cannot be used: {error}"
    except Unauthorised:
        return None  # a proxy in front of it asks for more than the collector does; something answers
    except CollectorError as error:
        return reason_of(error.__cause__) if error.status is None else f"it answers with status {error.status}"
    return None


@cache
def _watch(url: str) -> CollectorWatch:
    return CollectorWatch(url, ping)


def has_address() -> bool:
    """True if somebody said where the collector is; otherwise it may be elsewhere than at the default address."""
    return bool(os.environ.get("LOSSGUARD_URL"))


def is_down() -> bool:
    """True if the collector, whose address is known, does not answer."""
    return has_address() and outage() is not None


def outage() -> Outage | None:
    """Return the outage of the collector at LOSSGUARD_URL, or at the default address."""
    return _watch(collector_url()).outage()
