"""From records to lines of the spool, in the order of the calls, even if a device still computes their values."""

import threading
import time
from collections import deque
from typing import Any

from lossguard.spool.band import MAX_STEPS, Measured
from lossguard.spool.device_scalars import PendingScalar
from lossguard.spool.lines import Record, to_line
from lossguard.spool.spool import Spool
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.gating import SKIPPED
from lossguard.vocabulary.metrics import COUNTS
from lossguard.vocabulary.protocol import (
    CHECKPOINT_UNCERTIFIED,
    EXPECT,
    PROBE,
    SKIPPED_SAMPLE_RETURNED,
    is_count,
)
from lossguard.vocabulary.source_facts import SOURCE

INVALID_COUNT = "{}={} was not recorded: it must be at least 0 and less than 2**63"

ANNOUNCE_NO_CHANGE = (EXPECT, PROBE, SOURCE, SKIPPED_SAMPLE_RETURNED, CHECKPOINT_UNCERTIFIED)
"""Kinds of events that announce no change of the training: the run is judged, and orders are carried out, as before."""


class RecordWriter:
    """Appends records to the spool at once, or after those that wait for a device.

    `lock` is only held during an append, which is a write to a local file; the sender never acquires it.
    """

    def __init__(self, spool: Spool, log_once: LogOnce) -> None:
        self.lock = threading.RLock()
        self.appended = threading.Event()
        """Set after each line; whoever waits for lines clears it."""
        self.measured: deque[Measured] = deque(maxlen=MAX_STEPS)
        """The newest appended steps of this branch since the last announced change; read it under `lock`."""
        self._spool = spool
        self._log_once = log_once
        self._waiting: deque[Record] = deque()
        self._more = threading.Condition(self.lock)
        self._resolver: threading.Thread | None = None
        self._closed = False

    def put(self, record: Record, *, is_pending: bool = False) -> None:
        """Append `record`; `is_pending`: some of its metrics are PendingScalars. The caller holds `lock`."""
        if self._closed:
            return
        if is_pending or self._waiting:
            self._waiting.append(record)
            self._more.notify_all()
            if self._resolver is None:
                self._resolver = threading.Thread(target=self._resolve_all, name="lossguard-resolver", daemon=True)
                self._resolver.start()
        else:
            self._append(record)

    def close(self, timeout: float) -> bool:
        """Wait for the device and the disk, at most `timeout` seconds. Returns whether every record is in the file."""
        deadline = time.monotonic() + timeout
        with self._more:
            while not (done := not self._waiting and self._spool.retry()) and time.monotonic() < deadline:
                self._more.wait(min(0.1, timeout))
            self._closed = True
            self._more.notify_all()
            self._spool.close()
        return done

    def _append(self, record: Record) -> None:
        self._spool.append(to_line(record))
        metrics = record.get("metrics")
        if metrics is None:
            self._follow(record)
        elif SKIPPED not in metrics:
            self.measured.append((record["step"], metrics.get("loss"), metrics.get("grad_norm")))
        if not self.appended.is_set():  # a tenth of the cost of setting it
            self.appended.set()

    def _follow(self, record: Record) -> None:
        """Forget the steps that were discarded, or after which the training was changed."""
        if "segment" in record:
            while self.measured and self.measured[-1][0] >= record["fork_step"]:
                self.measured.pop()
        elif "event" in record and record["event"] not in ANNOUNCE_NO_CHANGE:
            self.measured.clear()

    def _resolve_all(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: bool(self._waiting) or self._closed)
                if self._closed:
                    return
                record = self._waiting[0]
            metrics = record.get("metrics")
            if metrics:
                record["metrics"] = self._resolved(metrics)
            with self._more:
                if self._closed:
                    return
                self._append(record)
                self._waiting.popleft()  # only now: later records must wait until it is in the file
                self._more.notify_all()

    def _resolved(self, metrics: dict[str, Any]) -> dict[str, Any]:
        numbers = {}
        for name, value in metrics.items():
            try:
                number = value.resolve() if isinstance(value, PendingScalar) else value
                if name in COUNTS and not is_count(number):
                    self._log_once.warn_once(f"count {name}", INVALID_COUNT.format(name, number))
                elif name != SKIPPED or number != 0:  # absent: no update was skipped
                    numbers[name] = number
            except Exception as problem:  # a device may raise anything: keep the other metrics of the step
                self._log_once.warn_once(f"metric {name}", f"{name} was not recorded: {problem}")
        return numbers
