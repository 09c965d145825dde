"""Before a run is resumed in a new folder: ask the collector whether another process still writes it."""

import time

from lossguard.delivery.client import Client
from lossguard.errors import CollectorError, ConfigurationError, Conflict
from lossguard.log_once import LogOnce
from lossguard.writer import WRITER_HEADER, Writer

ASK_TIMEOUT = 5.0
"""Seconds to wait for an answer: without one the run begins, because it must work without a collector."""
POLL_SECONDS = 1.0


def wait_for_lease(client: Client, run_id: str, writer: Writer, *, wait: float) -> None:
    """Take the lease of the run, waiting at most `wait` seconds for the process that holds it.

    Returns at once when the collector does not know the run or leases, or cannot be asked. Raises ConfigurationError,
    which names the process, when that keeps the lease.
    """
    deadline = time.monotonic() + wait
    log_once = LogOnce()
    while True:
        try:
            client.request("POST", f"/runs/{run_id}/lease", {}, headers={WRITER_HEADER: writer.to_header()})
            return
        except Conflict as problem:
            if time.monotonic() >= deadline:
                raise ConfigurationError(
                    f"run_id={run_id!r} is in use, and was not free within {wait:g} s (LOSSGUARD_LOCK_WAIT): "
                    f"{problem.detail}"
                ) from None
            log_once.warn_once("lease", f"waiting up to {wait:g} s: {problem.detail}")
        except CollectorError:
            return
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
