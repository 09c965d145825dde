"""Work of the leader that may take long: each has a thread of its own, so that the lease is renewed meanwhile."""

import threading
import time
from collections.abc import Callable

from db.store.leader import Lease

EVERY_SECONDS = 60.0


class Background:
    """Calls `work` in a thread, at most once every `every_seconds`, and never twice at a time."""

    def __init__(self, name: str, work: Callable[[Lease], object], *, every_seconds: float = EVERY_SECONDS) -> None:
        self._name, self._work, self._every_seconds = name, work, every_seconds
        self._due = 0.0  # by the monotonic clock
        self._thread: threading.Thread | None = None

    def start_if_due(self, lease: Lease) -> None:
        """Begin, unless it is too early or the last time goes on."""
        is_working = self._thread is not None and self._thread.is_alive()
        if not is_working and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_seconds
            name = f"lossguard-{self._name}"
            self._thread = threading.Thread(target=self._work, args=(lease,), name=name, daemon=True)
            self._thread.start()
