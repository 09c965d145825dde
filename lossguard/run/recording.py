"""A run that is recorded: the caller's thread writes steps to the spool, the sender's thread delivers them."""

import atexit
import functools
import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from lossguard.client.client import Client
from lossguard.delivery.hardware import HardwareSampler
from lossguard.delivery.sender import HEARTBEAT, Sender
from lossguard.run.run import NO_STEPS, Run, watching
from lossguard.spool.archive import FILE_LIMIT, Keep
from lossguard.spool.band import above_band
from lossguard.spool.device_scalars import PendingScalar, copied
from lossguard.spool.folders import LOCK_WAIT, FolderLock, make_folder
from lossguard.spool.history import History
from lossguard.spool.lines import Record
from lossguard.spool.spool import ANNOUNCE_NO_CHANGE, INVALID_COUNT, RecordWriter, Spool, new_session
from lossguard.spool.writer import writer_of
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.gating import SKIPPED
from lossguard.vocabulary.metrics import COUNTS, EVALUATION_SECONDS, PAUSE_SECONDS
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import (
    ANSWERS_PREFLIGHT,
    CAN_APPLY,
    CAN_ROLL_BACK,
    CAN_SCALE_LR,
    CANNOT_ROLL_BACK,
    CANNOT_SAVE,
    CANNOT_SKIP,
    EXPECT,
    HAS_LIMITS,
    MAX_COUNT,
    MAX_PAUSE,
    MAX_SHORT_TEXT,
    MAX_STEP,
    PROBE,
    checked_json,
    checked_step,
    checked_time,
    is_name,
    is_pause,
)
from lossguard.vocabulary.secrets import mask_json
from lossguard.vocabulary.source_facts import EVERY_STEP, SOURCE, SourceFacts
from lossguard.vocabulary.states import OrderState, Refusal, RunState, SegmentReason
from lossguard.vocabulary.values import on_device, plain, plain_json, storable
from lossguard.vocabulary.wire import Answer, Probe, Question, RestorableTier

SILENT_ASIDE = frozenset({"log_row", "log_event", "declare", "probe", "expect", "add_seconds"})
"""Methods that do nothing while a guard tries the arms of an order: see `Run.aside`."""
Method = TypeVar("Method", bound=Callable[..., None])


def _never_raises(method: Method) -> Method:
    """Log exceptions instead of raising them into the training loop; do nothing on an inert run."""

    @functools.wraps(method)
    def guarded(self: "RecordingRun", /, *args: Any, **kwargs: Any) -> None:
        if self.inert or (self.aside and method.__name__ in SILENT_ASIDE):
            return
        try:
            method(self, *args, **kwargs)
        except Exception as problem:
            self._warn_ignored(method.__name__, problem)

    return cast(Method, guarded)


class RecordingRun(Run):
    """The run that `lossguard.init` returns unless the mode is off."""

    def __init__(
        self,
        *,
        registration: dict[str, Any],
        directory: Path,
        client: Client | None,
        rank: int = 0,
        num_ranks: int = 1,
        lock: FolderLock | None = None,
        lock_wait: float = LOCK_WAIT,
        heartbeat: float = HEARTBEAT,
        keep: Keep = Keep.ALL,
        session: str | None = None,
        hardware_interval: float | None = None,
    ) -> None:
        """`registration` is the body of POST /runs; without a `client` nothing is delivered. `lock`: of `directory`;
        `finish` releases it. `heartbeat`, `keep`: see Sender. `session`: its name, if it must be the same each time.
        `hardware_interval`: seconds between two samples of this machine's hardware; None: it is not sampled.

        Raises OSError when `directory` cannot be written.
        """
        super().__init__(
            id=registration["id"], directory=directory, rank=rank, num_ranks=num_ranks, lock_wait=lock_wait
        )
        self._lock = lock
        make_folder(directory)
        self.inert = False
        """True after `finish`, and in a forked child process: then every method does nothing."""
        self.is_written = True
        """True if all lines stand in the spool; false after `finish` where the disk was full, for example."""
        self.log_once = LogOnce()
        self._url = None if client is None else client.url
        self.history = History.read(directory)
        self._registration = registration
        self._session = session or new_session(directory)
        limit = None if keep is Keep.ALL else FILE_LIMIT
        spool = Spool(directory / f"{self._session}.spool", self.log_once, file_limit=limit)
        self._writer = RecordWriter(spool, self.log_once)
        self._has_steps = bool(self.history.num_segments)
        self._is_planned = registration.get("total_steps") is not None
        self._num_segments = 0
        self._newest_segment_at = self.history.newest_segment_at
        self._last_step = -1
        self._newest_step: int | None = None
        self._newest_change: tuple[int, str] | None = None  # declared in the present segment: step and kind
        self._restorable: tuple[list[int], list[RestorableTier]] | None = None
        self._seconds: dict[str, float] = {}  # durations that the next step reports
        self._pause_began: float | None = None  # by the monotonic clock: an announced pause that no step has ended
        self._unplaced: list[Record] = []  # before the first segment
        self._valid_names: set[str] = set()  # of metrics
        self._inbox: tuple[Order, ...] = ()
        self._question: Question | None = None
        self._inbox_valid_until = 0.0  # by the monotonic clock: the lease may have gone to another process after it
        self._taken = set(self.history.answered)
        self._unanswered: dict[str | int, Order] = {}  # of those that were taken
        self._unguarded = ""  # why orders are refused
        writer = writer_of(directory, self._session)
        self._put({"run": registration})
        self._sender: Sender | None = None
        if client is not None:
            sampler = (
                None
                if hardware_interval is None
                else HardwareSampler(directory, interval=hardware_interval, newest_step=lambda: self._newest_step)
            )
            self._sender = Sender(
                *(directory, spool.path, client, self._receive, self.log_once, writer),
                heartbeat=heartbeat,
                keep=keep,
                hardware=sampler,
                ask=self._ask,
                appended=self._writer.appended,
            )
            self._sender.start()
        _open_runs.add(self)
        atexit.register(self._at_exit)

    @property
    def newest_step(self) -> int | None:
        return self._newest_step

    @property
    def planned_steps(self) -> int | None:
        steps: int | None = self._registration.get("total_steps")
        return steps

    @property
    def question(self) -> Question | None:
        return None if self.inert else self._question

    @_never_raises
    def announce(self, tell: Callable[[str], None], plan: Callable[[], str] | None = None) -> None:
        never = "" if self._url is None else "it is never rolled back"
        tell(watching(self.id, self._url, never if plan is None else plan()))

    def log(self, /, step: int, **metrics: Any) -> None:
        if self.inert or self.aside:  # not by the decorator, which copies the metrics: 0.5 us
            return
        try:
            self._log(step, metrics, None)
        except Exception as problem:
            self._warn_ignored("log", problem)

    def _warn_ignored(self, name: str, problem: Exception) -> None:
        self.log_once.warn_once(f"{name} {type(problem).__name__}", f"run.{name} was ignored: {problem}")

    @_never_raises
    def add_seconds(self, metric: str, seconds: float) -> None:
        with self._writer.lock:
            self._seconds[metric] = self._seconds.get(metric, 0.0) + plain(seconds)

    @_never_raises
    def log_row(self, step: int, metrics: Mapping[str, Any], at: float | None = None, position: Any = None) -> None:
        self._log(step, dict(metrics), at, position)

    def _log(self, step: int, metrics: dict[str, Any], at: float | None, position: Any = None) -> None:
        is_pending = False
        if self._seconds or self._pause_began is not None:
            metrics = self._with_durations(metrics)
        skipped = self.skipped
        if skipped is not None:
            metrics.setdefault(SKIPPED, skipped)
            self.skipped = None
        if not self._valid_names.issuperset(metrics):
            metrics = self._with_valid_names(metrics)
        for value in metrics.values():
            if type(value) is not float:
                metrics, is_pending = self._to_numbers(metrics)
                break
        if skipped is not None and metrics.get(SKIPPED) == 0:
            del metrics[SKIPPED]
        if self.batch_index is not None:
            metrics.setdefault("batch_index", self.batch_index)
        if self.data_seconds is not None:
            metrics.setdefault("data_seconds", self.data_seconds)
            self.data_seconds = None
        for name in COUNTS:
            if name not in metrics or (is_pending and isinstance(metrics[name], PendingScalar)):
                continue
            if not 0 <= metrics[name] < MAX_COUNT:
                self.log_once.warn_once(f"count {name}", INVALID_COUNT.format(name, metrics.pop(name)))
        if type(step) is not int or not 0 <= step < MAX_STEP:
            step = checked_step(step)
        now = time.time() if at is None else checked_time(at)
        with self._writer.lock:
            if step <= self._last_step or not self._num_segments:
                self._begin_segment(step, self._segment_reason(), None, None, at)
            self._last_step = self._newest_step = step
            self._has_steps = True
            record: Record = {"step": step, "time": now, "metrics": metrics}
            if position is not None:
                record["position"] = position
            self._writer.put(record, is_pending)

    @_never_raises
    def declare(self, /, kind: str, **details: Any) -> None:
        self._log_event(kind, details, None)

    @_never_raises
    def log_event(self, kind: str, details: Mapping[str, Any], at: float | None = None) -> None:
        self._log_event(kind, details, at)

    def _log_event(self, kind: str, details: Mapping[str, Any], at: float | None) -> None:
        now = time.time() if at is None else checked_time(at)
        if kind == SOURCE and (unread := SourceFacts.unread(details)):
            self.log_once.warn_once(
                "source",
                f"declare: {', '.join(unread)} says nothing of a source; it has {', '.join(EVERY_STEP.to_details())}",
            )
        record = {"event": str(kind), "step": None, "time": now, "details": plain_json(details)}
        with self._writer.lock:
            self._put_in_segment(record)

    @_never_raises
    def add_config(self, config: Mapping[str, Any], *, total_steps: int | None = None) -> None:
        added = {"config": self._registration["config"] | mask_json(plain_json(config))}
        checked_json(added["config"])
        if total_steps is not None and not self._is_planned:
            added["total_steps"] = checked_step(total_steps)
        if self._registration != self._registration | added:
            self.describe(**added)

    @_never_raises
    def expect(self, /, *, next_report_in: float) -> None:
        if not is_pause(next_report_in):
            raise ValueError(
                f"next_report_in={next_report_in!r} must be seconds, above 0 and at most {MAX_PAUSE:.0f} (30 days)"
            )
        details = {"next_report_in": float(next_report_in)}
        with self._writer.lock:
            self._pause_began = time.monotonic()
            self._put_in_segment({"event": EXPECT, "step": None, "time": time.time(), "details": details})

    @_never_raises
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
        step = checked_step(step)
        record = {"event": PROBE, "step": step, "time": time.time(), "details": probe.to_details()}
        with self._writer.lock:
            self._put_in_segment(record)

    @_never_raises
    def finish(self, state: str | None = None, timeout: float = 30.0, at: float | None = None) -> None:
        atexit.unregister(self._at_exit)
        deadline = time.monotonic() + timeout
        final = self._final_state(state)
        if final is RunState.FINISHED and not self._has_steps:
            mend = "call run.log in the loop, or attach the guard before train() or fit()"
            self.log_once.warn_once(NO_STEPS, f"run {self.id} ends with 0 steps: {mend}")
        try:
            self._put({"finish": final, "time": time.time() if at is None else at})
            self.is_written = self._writer.close(timeout)
            if not self.is_written:
                self.log_once.warn_once(
                    "close",
                    f"not every step was written to {self.directory}: the disk is full, or it or a device was too slow",
                )
        finally:
            self.inert = True
            if self._sender is not None:
                self._sender.close(max(0.0, deadline - time.monotonic()))
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    @_never_raises
    def describe(self, **fields: Any) -> None:
        """Register the run again with other values of these fields, such as name and config."""
        self._registration = {**self._registration, **fields}
        self._put({"run": self._registration})

    @_never_raises
    def hand_over(self, timeout: float = 1.0) -> None:
        """Release the folder without ending the run: another process goes on with it, and delivers what is left."""
        atexit.unregister(self._at_exit)
        try:
            self._writer.close(timeout)
        finally:
            self.inert = True
            if self._sender is not None:
                self._sender.close(timeout)
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def doubt(self, step: int) -> str | None:
        with self._writer.lock:
            measured = [*self._writer.measured]
        return above_band(measured, step)

    @_never_raises
    def can_roll_back(self) -> None:
        self._unguarded = ""
        self._set_capabilities([CAN_ROLL_BACK], ended=lambda each: each.startswith(CANNOT_ROLL_BACK))

    @_never_raises
    def cannot_roll_back(self, why: str) -> None:
        self._unguarded = why = storable(why)[: MAX_SHORT_TEXT - len(CANNOT_ROLL_BACK)]
        of_the_guard = (CAN_ROLL_BACK, ANSWERS_PREFLIGHT)
        self._set_capabilities(
            [CANNOT_ROLL_BACK + why], ended=lambda each: each in of_the_guard or each.startswith(CANNOT_ROLL_BACK)
        )
        self._refuse_open()

    def _refuse_open(self) -> None:
        """Refuse the orders that nobody will carry out: those of the inbox, and those that were taken."""
        with self._writer.lock:
            waiting = [order for order in self._inbox if order.key not in self._taken]
            self._taken.update(order.key for order in waiting)
            waiting += self._unanswered.values()
        for order in waiting:
            self.refuse(order, self._unguarded, Refusal.OBSERVES)

    @_never_raises
    def cannot_save(self, why: str) -> None:
        said = [CANNOT_SAVE + storable(why)[: MAX_SHORT_TEXT - len(CANNOT_SAVE)]] if why else []
        self._set_capabilities(said, ended=lambda each: each.startswith(CANNOT_SAVE))

    @_never_raises
    def cannot_skip(self) -> None:
        self._set_capabilities([CANNOT_SKIP])

    @_never_raises
    def can_apply(self, remedy: str) -> None:
        self._set_capabilities([CAN_APPLY + remedy])

    @_never_raises
    def can_scale_lr(self) -> None:
        self._set_capabilities([CAN_SCALE_LR])

    @_never_raises
    def has_limits(self, limits: str) -> None:
        self._set_capabilities([HAS_LIMITS + limits] * bool(limits), ended=lambda each: each.startswith(HAS_LIMITS))

    def outdated(self, order: Order) -> str | None:
        if order.segment is None:
            return None
        with self._writer.lock:
            if order.segment in self.history.left:
                return "the run was rewound after it was decided"
            change, is_present = self._newest_change, order.segment == self._segment_key()
            if change is not None and not (is_present and order.step is not None and change[0] <= order.step):
                return f"the run declared {change[1]} at step {change[0]}, after it was decided"
        return None

    def take_order(self) -> Order | None:
        if not self._inbox or self.inert or time.monotonic() >= self._inbox_valid_until:
            return None
        with self._writer.lock:
            order = next((order for order in self._inbox if order.key not in self._taken), None)
            if order is not None:
                self._taken.add(order.key)
                self._unanswered[order.key] = order
            return order

    def revoked(self, order: Order) -> str | None:
        valid_until = self._inbox_valid_until  # first: the sender's thread sets it last
        inbox = self._inbox
        if valid_until == 0.0:  # nothing has come yet: the order was kept by an earlier process
            return None
        if self.inert or time.monotonic() >= valid_until:
            return "the lease of the run ran out meanwhile"
        if all(each.key != order.key for each in inbox):
            return "the collector has withdrawn it meanwhile"
        return None

    @_never_raises
    def give_back(self, order: Order) -> None:
        with self._writer.lock:
            self._taken.discard(order.key)
            self._unanswered.pop(order.key, None)

    @_never_raises
    def open_segment(
        self, fork_step: int, reason: SegmentReason, order: Order | None = None, applied: dict[str, Any] | None = None
    ) -> None:
        with self._writer.lock:
            self._begin_segment(fork_step, reason, order, applied)

    @_never_raises
    def accept(self, order: Order, detail: str = "") -> None:
        self._answer(order, OrderState.APPLIED, detail)

    @_never_raises
    def refuse(self, order: Order, detail: str, refusal: Refusal | None = None) -> None:
        self._answer(order, OrderState.FAILED, detail, refusal)

    @_never_raises
    def set_restorable(self, steps: Sequence[int], tiers: Sequence[RestorableTier] = ()) -> None:
        restorable = (list(steps), list(tiers))
        if restorable != self._restorable:
            self._restorable = restorable
            with self._writer.lock:
                self._put_in_segment(self._restorable_record())

    @_never_raises
    def answers_questions(self) -> None:
        self._set_capabilities([ANSWERS_PREFLIGHT])

    @_never_raises
    def answer_question(self, answer: Answer) -> None:
        with self._writer.lock:  # in a line of a kind that every release delivers
            self._put_in_segment(self._restorable_record() | {"preflight": answer.to_wire()})

    def _restorable_record(self) -> Record:
        steps, tiers = self._restorable or ([], [])
        record: Record = {"restorable": list(steps)}
        return record | {"tiers": [each.to_wire() for each in tiers]} if tiers else record

    def _set_capabilities(self, added: Sequence[str], ended: Callable[[str], bool] = lambda _: False) -> None:
        """Announce the capabilities `added`, and that those for which `ended` is true have ended."""
        known = self._registration["capabilities"]
        kept = [each for each in known if each in added or not ended(each)]
        changed = [*kept, *(each for each in added if each not in kept)]
        if changed != known:
            self.describe(capabilities=changed)

    def _begin_segment(
        self,
        fork_step: int,
        reason: SegmentReason,
        order: Order | None,
        applied: Mapping[str, Any] | None,
        at: float | None = None,
    ) -> None:
        ordinal = self._num_segments
        self._num_segments += 1
        self._last_step, self._newest_step, self._newest_change = fork_step - 1, None, None
        self.history.begin_segment(self._segment_key(), reason, fork_step, applied or {})
        # The newest segment must have the latest time, even when the clock was set back.
        self._newest_segment_at = max(time.time() if at is None else at, self._newest_segment_at + 0.001)
        if order is not None:
            self._unanswered.pop(order.key, None)
        record = {"segment": ordinal, "fork_step": fork_step, "reason": reason, "order": order and order.id}
        self._put({**record, "key": order and order.key, "applied": applied, "time": self._newest_segment_at})
        unplaced, self._unplaced = self._unplaced, []
        for each in unplaced:
            self._put_in_segment(each)

    def _put_in_segment(self, record: Record) -> None:
        """Append a line that belongs to a segment; it waits until the first step opens one."""
        if not self._num_segments:
            self._unplaced.append(record)
            return
        if "event" in record and record["step"] is None:
            record["step"] = self._last_step + 1
        if "event" in record and record["event"] not in ANNOUNCE_NO_CHANGE:
            self._newest_change = record["step"], record["event"]
        self._writer.put(record)

    def _segment_key(self) -> str:
        """Return the key of the present segment, as the collector knows it."""
        return f"{self._session}-{self._num_segments - 1}"

    def _segment_reason(self) -> SegmentReason:
        if self._num_segments:
            return SegmentReason.REWIND
        return SegmentReason.RESUME if self.history.num_segments else SegmentReason.START

    def _answer(self, order: Order, state: OrderState, detail: str, refusal: Refusal | None = None) -> None:
        self._unanswered.pop(order.key, None)
        record: Record = {"answer": order.id, "key": order.key, "state": state, "detail": detail, "time": time.time()}
        self._put(record if refusal is None else record | {"refusal": refusal})

    def _final_state(self, state: str | None) -> RunState:
        try:
            return RunState(state) if state else RunState.INTERRUPTED if self.interrupted else RunState.FINISHED
        except ValueError:
            self.log_once.warn_once("state", f"finish: {state!r} is not a run state; the run is recorded as finished")
            return RunState.FINISHED

    def _put(self, record: Record) -> None:
        with self._writer.lock:
            self._writer.put(record)

    def _with_durations(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The metrics of a step with what happened since the one before. A pause may be an evaluation that it has."""
        with self._writer.lock:
            metrics, self._seconds = self._seconds | metrics, {}
            began, self._pause_began = self._pause_began, None
        if began is not None and EVALUATION_SECONDS not in metrics:
            metrics.setdefault(PAUSE_SECONDS, time.monotonic() - began)
        return metrics

    def _with_valid_names(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The metrics whose name the collector accepts: it would reject the whole step for one invalid name."""
        for name in metrics:
            if is_name(name):
                self._valid_names.add(name)
            else:
                self.log_once.warn_once(
                    f"name {name}",
                    f"{name!r:.200} was not recorded: a name has 1 to 128 characters and no control characters",
                )
        return {name: value for name, value in metrics.items() if name in self._valid_names}

    def _to_numbers(self, metrics: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The metrics as plain numbers, or as PendingScalars of device tensors (then the second value is True)."""
        numbers: dict[str, Any] = {}
        on_devices: dict[str, Any] = {}
        for name, value in metrics.items():
            try:
                if value is None:
                    continue
                if on_device(value):
                    on_devices[name] = value
                else:
                    numbers[name] = plain(value)
            except Exception as problem:  # an invalid value must not cost the whole step
                self.log_once.warn_once(f"metric {name}", f"{name} was not recorded: {problem}")
        if not on_devices:
            return numbers, False
        pending, problems = copied(on_devices)
        for name, reason in problems.items():
            self.log_once.warn_once(f"metric {name}", f"{name} was not recorded: {reason}")
        return numbers | pending, bool(pending)

    def _receive(self, orders: list[Order], valid_until: float = math.inf) -> None:
        """Replace the inbox by the orders that are open now: a withdrawn order leaves it. The sender calls this."""
        self._inbox, self._inbox_valid_until = tuple(orders), valid_until
        if self._unguarded:
            self._refuse_open()

    def _ask(self, question: Question | None) -> None:
        """The collector asks, or no longer does. The sender calls this."""
        self._question = question

    def _at_exit(self) -> None:
        """The interpreter exits without `finish`: after an uncaught exception (not Ctrl-C) the run has failed."""
        uncaught = getattr(sys, "last_type", None)
        if uncaught is None:
            state = None
        else:
            state = RunState.INTERRUPTED if issubclass(uncaught, KeyboardInterrupt) else RunState.FAILED
        self.finish(state, timeout=10.0)


_open_runs: weakref.WeakSet[RecordingRun] = weakref.WeakSet()


def _disable_in_child() -> None:
    """After a fork (DataLoader workers) only the parent records: a child has the file but not the threads."""
    for run in _open_runs:
        run.inert = True


os.register_at_fork(after_in_child=_disable_in_child)
