"""A run that is recorded: steps go to the spool in the caller's thread, a sender delivers them in its own."""

import atexit
import functools
import operator
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from lossguard.delivery.client import Client
from lossguard.delivery.sender import Sender
from lossguard.json_values import plain_json, storable
from lossguard.log_once import LogOnce
from lossguard.metrics import COUNTS
from lossguard.orders import Order
from lossguard.probe import Probe
from lossguard.protocol import CAN_ROLL_BACK, EXPECT, MAX_PAUSE, PROBE, is_count, is_name, is_pause
from lossguard.run import Run
from lossguard.scalars import Snapshot, on_device, plain
from lossguard.spooling.history import History
from lossguard.spooling.spool import Spool, new_session
from lossguard.spooling.writer import NO_COUNT, Record, Writer
from lossguard.states import OrderState, RunState, SegmentReason

Method = TypeVar("Method", bound=Callable[..., None])


def _harmless(method: Method) -> Method:
    """Nothing that goes wrong in here reaches the training loop; a forked child's copy of a run does nothing."""

    @functools.wraps(method)
    def guarded(self: "RecordingRun", /, *args: Any, **kwargs: Any) -> None:
        if self.inert:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as problem:
            self.notices.say(
                f"{method.__name__} {type(problem).__name__}", f"{method.__name__} was left out: {problem}"
            )

    return cast(Method, guarded)


class RecordingRun(Run):
    def __init__(
        self,
        *,
        registration: dict[str, Any],
        directory: Path,
        client: Client | None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """`registration` is the body of POST /runs. Raises OSError when `directory` cannot be written."""
        super().__init__(id=registration["id"], directory=directory, rank=rank, num_ranks=num_ranks)
        directory.mkdir(parents=True, exist_ok=True)
        self.inert = False
        """True after `finish` and in a forked child."""
        self.notices = LogOnce()
        self.history = History.read(directory)
        self._registration = registration
        self._session = new_session(directory)
        spool = Spool(directory / f"{self._session}.spool", self.notices)
        self._writer = Writer(spool, self.notices)
        self._num_segments = 0
        self._newest_segment_at = self.history.newest_segment_at
        self._last_step = -1
        self._restorable: list[int] | None = None
        self._early: list[Record] = []
        self._names: set[str] = set()  # of metrics, found to be good
        self._inbox: tuple[Order, ...] = ()
        self._taken = set(self.history.answered)
        self._put({"run": registration})
        self._sender = None if client is None else Sender(directory, spool.path, client, self._receive, self.notices)
        if self._sender is not None:
            self._sender.start()
        _living.add(self)
        atexit.register(self._at_exit)

    @_harmless
    def log(self, /, step: int, **metrics: Any) -> None:
        waits = False
        if not self._names.issuperset(metrics):
            metrics = self._well_named(metrics)
        for value in metrics.values():
            if type(value) is not float:
                metrics, waits = self._plain(metrics)
                break
        if self.batch_index is not None:
            metrics.setdefault("batch_index", self.batch_index)
        for name in COUNTS:
            if name in metrics and not isinstance(metrics[name], Snapshot) and not is_count(metrics[name]):
                self.notices.say(f"count {name}", NO_COUNT.format(name, metrics.pop(name)))
        if type(step) is not int:
            step = operator.index(step)
        if step < 0:
            raise ValueError(f"step {step} is below 0")
        now = time.time()
        with self._writer.lock:
            if step <= self._last_step or not self._num_segments:
                self._begin_segment(step, self._reason(), None, None)
            self._last_step = step
            self._writer.put({"step": step, "time": now, "metrics": metrics}, waits=waits)

    @_harmless
    def declare(self, /, kind: str, **details: Any) -> None:
        record = {"event": str(kind), "step": None, "time": time.time(), "details": plain_json(details)}
        with self._writer.lock:
            self._put_in_segment(record)

    @_harmless
    def expect(self, /, *, next_report_in: float) -> None:
        if not is_pause(next_report_in):
            raise ValueError(
                f"next_report_in={next_report_in!r} must be seconds, above 0 and at most {MAX_PAUSE:.0f} (30 days)"
            )
        details = {"next_report_in": float(next_report_in)}
        with self._writer.lock:
            self._put_in_segment({"event": EXPECT, "step": None, "time": time.time(), "details": details})

    @_harmless
    def probe(
        self,
        /,
        step: int,
        prompt: str,
        *,
        tokens: Sequence[str],
        log_probabilities: Sequence[float],
        target: str | None = None,
        **others: Any,
    ) -> None:
        numbers: dict[str, Any] = {name: value if value is None else plain(value) for name, value in others.items()}
        probe = Probe(
            prompt=storable(prompt),
            tokens=tuple(map(storable, tokens)),
            log_probabilities=tuple(map(plain, log_probabilities)),
            target=None if target is None else storable(target),
            **numbers,
        )
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step {step} is below 0")
        record = {"event": PROBE, "step": step, "time": time.time(), "details": probe.to_details()}
        with self._writer.lock:
            self._put_in_segment(record)

    @_harmless
    def finish(self, state: str | None = None, timeout: float = 30.0) -> None:
        atexit.unregister(self._at_exit)
        deadline = time.monotonic() + timeout
        try:
            self._put({"finish": self._final(state), "time": time.time()})
            if not self._writer.close(timeout):
                self.notices.say(
                    "close", f"not every step reached {self.directory}: a device or the disk kept it waiting"
                )
        finally:
            self.inert = True
            if self._sender is not None:
                self._sender.close(max(0.0, deadline - time.monotonic()))

    @_harmless
    def can_roll_back(self) -> None:
        if CAN_ROLL_BACK not in self._registration["capabilities"]:
            self._registration = {
                **self._registration,
                "capabilities": [*self._registration["capabilities"], CAN_ROLL_BACK],
            }
            self._put({"run": self._registration})

    def take_order(self) -> Order | None:
        if not self._inbox or self.inert:
            return None
        with self._writer.lock:
            order = next((order for order in self._inbox if order.identity not in self._taken), None)
            if order is not None:
                self._taken.add(order.identity)
            return order

    @_harmless
    def open_segment(
        self, fork_step: int, reason: SegmentReason, order: Order | None = None, applied: dict[str, Any] | None = None
    ) -> None:
        with self._writer.lock:
            self._begin_segment(fork_step, reason, order, applied)

    @_harmless
    def accept(self, order: Order, detail: str = "") -> None:
        self._answer(order, OrderState.APPLIED, detail)

    @_harmless
    def refuse(self, order: Order, detail: str) -> None:
        self._answer(order, OrderState.FAILED, detail)

    @_harmless
    def set_restorable(self, steps: Sequence[int]) -> None:
        if list(steps) != self._restorable:
            self._restorable = list(steps)
            with self._writer.lock:
                self._put_in_segment({"restorable": self._restorable})

    def _begin_segment(
        self, fork_step: int, reason: SegmentReason, order: Order | None, applied: Mapping[str, Any] | None
    ) -> None:
        ordinal = self._num_segments
        self._num_segments += 1
        self._last_step = fork_step - 1
        # The segment opened last is the one that counts: a clock that was set back must not hide it behind older ones.
        self._newest_segment_at = max(time.time(), self._newest_segment_at + 0.001)
        record = {"segment": ordinal, "fork_step": fork_step, "reason": reason, "order": order and order.id}
        self._put({**record, "key": order and order.key, "applied": applied, "time": self._newest_segment_at})
        early, self._early = self._early, []
        for each in early:
            self._put_in_segment(each)

    def _put_in_segment(self, record: Record) -> None:
        """Append what belongs to a segment, once there is one: before its first step nobody knows where it begins."""
        if not self._num_segments:
            self._early.append(record)
            return
        if "event" in record and record["step"] is None:
            record["step"] = self._last_step + 1
        self._writer.put(record)

    def _reason(self) -> SegmentReason:
        if self._num_segments:
            return SegmentReason.REWIND
        return SegmentReason.RESUME if self.history.num_segments else SegmentReason.START

    def _answer(self, order: Order, state: OrderState, detail: str) -> None:
        self._put({"answer": order.id, "key": order.key, "state": state, "detail": detail, "time": time.time()})

    def _final(self, state: str | None) -> RunState:
        try:
            return RunState(state) if state else RunState.INTERRUPTED if self.interrupted else RunState.FINISHED
        except ValueError:
            self.notices.say("state", f"finish: {state!r} is not a state of a run; taken as finished")
            return RunState.FINISHED

    def _put(self, record: Record) -> None:
        with self._writer.lock:
            self._writer.put(record)

    def _well_named(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Metrics whose name the collector takes: one bad name would cost the whole step there."""
        for name in metrics:
            if is_name(name):
                self._names.add(name)
            else:
                self.notices.say(
                    f"name {name}",
                    f"{name!r:.200} was not recorded: a name has 1 to 128 characters, none of them control",
                )
        return {name: value for name, value in metrics.items() if name in self._names}

    def _plain(self, metrics: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Metrics as plain numbers, or as Snapshots of device tensors (then the second value is True)."""
        numbers: dict[str, Any] = {}
        waits = False
        for name, value in metrics.items():
            try:
                if value is None:
                    continue
                if on_device(value):
                    numbers[name], waits = Snapshot(value), True
                else:
                    numbers[name] = plain(value)
            except Exception as problem:  # a bad value costs itself, not the step
                self.notices.say(f"metric {name}", f"{name} was not recorded: {problem}")
        return numbers, waits

    def _receive(self, orders: list[Order]) -> None:
        """Called by the sender with all orders that are open now, so that a withdrawn one leaves the inbox."""
        self._inbox = tuple(orders)

    def _at_exit(self) -> None:
        """The interpreter ends without `finish`: an exception that nobody caught is a failure, Ctrl-C is none."""
        uncaught = getattr(sys, "last_type", None)
        if uncaught is None:
            state = None
        else:
            state = RunState.INTERRUPTED if issubclass(uncaught, KeyboardInterrupt) else RunState.FAILED
        self.finish(state, timeout=10.0)


_living: weakref.WeakSet[RecordingRun] = weakref.WeakSet()


def _silence_child() -> None:
    """After a fork (DataLoader workers) only the parent goes on recording: a child has the file but not the threads."""
    for run in _living:
        run.inert = True


os.register_at_fork(after_in_child=_silence_child)
