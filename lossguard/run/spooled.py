"""The lines that a run writes into its spool: steps, events, segments, answers to orders."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from lossguard.delivery.sender import Inbox
from lossguard.run.run import Run
from lossguard.run.settings import Settings
from lossguard.spool.archive import FILE_LIMIT, Keep
from lossguard.spool.band import above_band
from lossguard.spool.device_scalars import PendingScalar, copied
from lossguard.spool.folders import make_folder
from lossguard.spool.history import History
from lossguard.spool.lines import Record
from lossguard.spool.spool import ANNOUNCE_NO_CHANGE, INVALID_COUNT, RecordWriter, Spool, new_session
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.metrics import COUNTS, EVALUATION_SECONDS, PAUSE_SECONDS, SKIPPED
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import (
    EXPECT,
    MAX_COUNT,
    MAX_PAUSE,
    MAX_STEP,
    PROBE,
    checked_step,
    checked_time,
    is_name,
    is_pause,
    on_device,
    plain,
    plain_json,
    storable,
)
from lossguard.vocabulary.source_facts import EVERY_STEP, SOURCE, SourceFacts
from lossguard.vocabulary.states import OrderState, Refusal, SegmentReason
from lossguard.vocabulary.wire import Answer, Probe, Question, RestorableTier

SILENT_ASIDE = frozenset({"log_row", "log_event", "declare", "probe", "expect", "add_seconds"})
"""Methods that do nothing while a guard tries the arms of an order: see `Run.aside`."""
UNANNOUNCED = "run.expect announces nothing before the first logged step: after 600 s without one the run is stalled"
Method = TypeVar("Method", bound=Callable[..., None])


def never_raises(method: Method) -> Method:
    """Log exceptions instead of raising them into the training loop; do nothing on an inert run."""

    @functools.wraps(method)
    def guarded(self: "SpooledRun", /, *args: Any, **kwargs: Any) -> None:
        if self.inert or (self.aside and method.__name__ in SILENT_ASIDE):
            return
        try:
            method(self, *args, **kwargs)
        except Exception as problem:
            self._warn_ignored(method.__name__, problem)

    return cast(Method, guarded)


class SpooledRun(Run):
    """A run whose steps, events and segments are written into its spool by the caller's thread."""

    def __init__(self, id: str, directory: Path, settings: Settings, *, session: str | None = None) -> None:
        """`session`: its name, if it must be the same each time. Raises OSError when `directory` cannot be written."""
        of_ranks = {"rank": settings.rank, "num_ranks": settings.num_ranks}
        super().__init__(id=id, directory=directory, lock_wait=settings.lock_wait, **of_ranks)
        make_folder(directory)
        self.inert = False
        """True after `finish`, and in a forked child process: then every method does nothing."""
        self.log_once = LogOnce()
        self.history = History.read(directory)
        self.inbox = Inbox(self.history.answered)
        """The orders that are open, and the collector's question; the sender fills it."""
        self._session = session or new_session(directory)
        file_limit = None if settings.keep is Keep.ALL else FILE_LIMIT
        self._spool = Spool(directory / f"{self._session}.spool", self.log_once, file_limit=file_limit)
        self._writer = RecordWriter(self._spool, self.log_once)
        self._has_steps = bool(self.history.num_segments)
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

    @property
    def newest_step(self) -> int | None:
        return self._newest_step

    def log(self, /, step: int, **metrics: Any) -> None:
        if self.inert or self.aside:  # not by the decorator, which copies the metrics: 0.5 us
            return
        try:
            self._log(step, metrics, None)
        except Exception as problem:
            self._warn_ignored("log", problem)

    def _warn_ignored(self, name: str, problem: Exception) -> None:
        self.log_once.warn_once(f"{name} {type(problem).__name__}", f"run.{name} was ignored: {problem}")

    @never_raises
    def add_seconds(self, metric: str, seconds: float) -> None:
        with self._writer.lock:
            self._seconds[metric] = self._seconds.get(metric, 0.0) + plain(seconds)

    @never_raises
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
                first = SegmentReason.RESUME if self.history.num_segments else SegmentReason.START
                self._begin_segment(step, SegmentReason.REWIND if self._num_segments else first, None, None, at)
            self._last_step = self._newest_step = step
            self._has_steps = True
            record: Record = {"step": step, "time": now, "metrics": metrics}
            if position is not None:
                record["position"] = position
            self._writer.put(record, is_pending)

    def scales_loss(self) -> None:
        self._writer.scales_loss = True

    @never_raises
    def declare(self, /, kind: str, **details: Any) -> None:
        self._log_event(kind, details, None)

    @never_raises
    def log_event(self, kind: str, details: Mapping[str, Any], at: float | None = None) -> None:
        self._log_event(kind, details, at)

    def _log_event(self, kind: str, details: Mapping[str, Any], at: float | None) -> None:
        now = time.time() if at is None else checked_time(at)
        if kind == SOURCE and (unread := SourceFacts.unread(details)):
            self.log_once.warn_once(
                "source",
                f"declare: {', '.join(unread)} says nothing of a source; it has {', '.join(EVERY_STEP.to_details())}",
            )
        self._put_in_segment({"event": str(kind), "step": None, "time": now, "details": plain_json(details)})

    @never_raises
    def expect(self, /, *, next_report_in: float) -> None:
        if not is_pause(next_report_in):
            raise ValueError(
                f"next_report_in={next_report_in!r} must be seconds, above 0 and at most {MAX_PAUSE:.0f} (30 days)"
            )
        if not self._num_segments:
            self.log_once.warn_once("expect", UNANNOUNCED)
        self._pause_began = time.monotonic()
        details = {"next_report_in": float(next_report_in)}
        self._put_in_segment({"event": EXPECT, "step": None, "time": time.time(), "details": details})

    @never_raises
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
        self._put_in_segment({"event": PROBE, "step": step, "time": time.time(), "details": probe.to_details()})

    def doubt(self, step: int) -> str | None:
        with self._writer.lock:
            measured = [*self._writer.measured]
        return above_band(measured, step)

    @property
    def question(self) -> Question | None:
        return None if self.inert else self.inbox.question

    def take_order(self) -> Order | None:
        return None if self.inert else self.inbox.take()

    def revoked(self, order: Order) -> str | None:
        return self.inbox.revoked(order, has_ended=self.inert)

    @never_raises
    def give_back(self, order: Order) -> None:
        self.inbox.give_back(order)

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

    @never_raises
    def open_segment(
        self, fork_step: int, reason: SegmentReason, order: Order | None = None, applied: dict[str, Any] | None = None
    ) -> None:
        with self._writer.lock:
            self._begin_segment(fork_step, reason, order, applied)

    @never_raises
    def accept(self, order: Order, detail: str = "") -> None:
        self._answer(order, OrderState.APPLIED, detail)

    @never_raises
    def refuse(self, order: Order, detail: str, refusal: Refusal | None = None) -> None:
        self._answer(order, OrderState.FAILED, detail, refusal)

    def _answer(self, order: Order, state: OrderState, detail: str, refusal: Refusal | None = None) -> None:
        self.inbox.settle(order)
        record: Record = {"answer": order.id, "key": order.key, "state": state, "detail": detail, "time": time.time()}
        with self._writer.lock:
            self._writer.put(record if refusal is None else record | {"refusal": refusal})

    @never_raises
    def set_restorable(self, steps: Sequence[int], tiers: Sequence[RestorableTier] = ()) -> None:
        restorable = (list(steps), list(tiers))
        with self._writer.lock:  # an answer of another thread must not bring the older list after the newer one
            if restorable != self._restorable:
                self._restorable = restorable
                self._put_in_segment(self._restorable_record())

    @never_raises
    def answer_question(self, answer: Answer) -> None:
        with self._writer.lock:  # in a line of a kind that every release delivers
            self._put_in_segment(self._restorable_record() | {"preflight": answer.to_wire()})

    def _restorable_record(self) -> Record:
        steps, tiers = self._restorable or ([], [])
        record: Record = {"restorable": list(steps)}
        return record | {"tiers": [each.to_wire() for each in tiers]} if tiers else record

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
            self.inbox.settle(order)
        record = {"segment": ordinal, "fork_step": fork_step, "reason": reason, "order": order and order.id}
        self._writer.put({**record, "key": order and order.key, "applied": applied, "time": self._newest_segment_at})
        unplaced, self._unplaced = self._unplaced, []
        for each in unplaced:
            self._put_in_segment(each)

    def _put_in_segment(self, record: Record) -> None:
        """Append a line that belongs to a segment; it waits until the first step opens one."""
        with self._writer.lock:
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
