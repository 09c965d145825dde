"""From the lines of a spool to reports, and the orders of their answers."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lossguard.spool.lines import Record
from lossguard.spool.set_aside import DamagedRange, SetAside
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import WINDOW, AcknowledgedOffset, Line, SpoolReader
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.wire import Question

# The body of a report.

Body = dict[str, Any]


def in_report(record: Record) -> bool:
    """Return True if a line is sent as a part of a report."""
    return "step" in record or "restorable" in record


def report(session: str, segment: int | None, lines: list[Line], *, before: int = 0) -> Body:
    """The body of POST /reports for `lines`: columns of equal length, null where a step has no such metric.

    `before`: bytes in the session's files before the one of these lines.
    """
    steps = [line.record for line in lines if "metrics" in line.record]
    names = dict.fromkeys(name for record in steps for name in record["metrics"])
    body: Body = {
        "segment": segment,
        "steps": [record["step"] for record in steps],
        "times": [record["time"] for record in steps],
        "metrics": {name: [record["metrics"].get(name) for record in steps] for name in names},
        "events": [_event(f"{session}-{before + line.begin}", line.record) for line in lines if "event" in line.record],
    }
    for line in lines:
        if "restorable" in line.record:
            body |= restorable(line.record)
    return body


def restorable(record: Record) -> Body:
    """The part of a report that says which steps can be restored."""
    body = {"restorable_steps": record["restorable"], "restorable_tiers": record.get("tiers")}
    return body | {"preflight": record["preflight"]} if "preflight" in record else body


def _event(key: str, record: Record) -> Body:
    return {
        "key": key,
        "step": record["step"],
        "time": record["time"],
        "kind": record["event"],
        "details": record["details"],
    }


# The registration of a run: as its spool says, or if that line is damaged, as another spool or its folder says.


def registration_of(reader: SpoolReader) -> tuple[dict[str, Any], bool]:
    """(the registration of a spool's run, whether the spool itself begins with it)."""
    for line in reader.records("run", end=1):
        return line.record["run"], True
    folder = reader.path.parent
    for path in [reader.path, *spools_in(folder)]:
        with SpoolReader(path) as other:
            for line in other.records("run"):
                return line.record["run"], False
    return _from_folder(folder, started_at=reader.path.stat().st_mtime), False


def _from_folder(folder: Path, *, started_at: float) -> dict[str, Any]:
    """The least that a collector needs; the names of the folders are those of the project and of the run."""
    return {
        "id": folder.name,
        "project": unquote(folder.parent.name),
        "name": folder.name,
        "config": {},
        "capabilities": [],
        "started_at": started_at,
    }


# Lines that are to be delivered: intact, in order, each once. Damaged ones are set aside.


class IntactLines:
    """Reads on from the acknowledged offset."""

    def __init__(self, path: Path, log_once: LogOnce, set_aside: SetAside) -> None:
        """Raises OSError when the spool cannot be read."""
        self.reader = SpoolReader(path)
        self._path = path
        self._offset = AcknowledgedOffset(path)
        self._log_once = log_once
        self._set_aside = set_aside
        self._newest_time = 0.0  # of the acknowledged lines
        self._newest_segment = -1

    @property
    def begin(self) -> int:
        """Offset up to which everything is delivered or set aside."""
        return self._offset.value

    def resume(self, newest_time: float, newest_segment: int) -> None:
        """Time of the newest delivered line, and number of the newest delivered segment (-1: none)."""
        self._newest_time, self._newest_segment = newest_time, newest_segment

    def next(self, limit: int) -> list[Line]:
        """The next lines, at most `limit`, without acknowledging them. Empty: nothing is left, or only damage was."""
        lines: list[Line] = []
        damaged: list[Line] = []
        for line in self.reader.lines(self.begin):
            if line.problem and lines:
                break  # deliver the lines before it first
            (damaged if line.problem else lines).append(line)
            if len(lines) == limit:
                break
        if damaged:
            self._set_damage_aside(damaged[0].begin, damaged[-1].end, damaged[0].problem)
        return lines

    def acknowledge(self, lines: list[Line]) -> None:
        """The collector has these lines, which `next` has returned."""
        for line in lines:
            self._newest_time = max(self._newest_time, line.record.get("time", 0.0))
            self._newest_segment = max(self._newest_segment, line.record.get("segment", -1))
        self._save(lines[-1].end)

    def without_repeated(self, lines: list[Line]) -> list[Line]:
        """`lines` without those that the disk wrote twice: the same bytes, with the same time, stand before them."""
        kept, newest = [], self._newest_time
        for line in lines:
            time = line.record.get("time", newest)
            is_repeated = line.record.get("segment", math.inf) <= self._newest_segment
            if is_repeated or ("time" in line.record and time <= newest and self._stands_before(line)):
                continue
            newest = max(newest, time)
            kept.append(line)
        return kept

    def incomplete(self) -> str:
        """Once nothing is left: where the line lies that was never completed; empty if there is none."""
        size = self.reader.size()
        return "" if self.begin == size else f"bytes {self.begin} to {size} of {self._path} (an incomplete line)"

    def close(self) -> None:
        """Close the files."""
        self.reader.close()
        self._offset.close()

    def _stands_before(self, line: Line) -> bool:
        before = self.reader.raw_lines(max(0, line.begin - WINDOW))
        return any(begin < line.begin and raw == line.raw for begin, raw in before)

    def _set_damage_aside(self, begin: int, end: int, problem: str) -> None:
        self._set_aside.add(DamagedRange(spool=self._path.name, begin=begin, end=end, problem=problem))
        self._log_once.warn_once(
            f"damaged {self._path}",
            f"{self._path} is damaged at bytes {begin} to {end} ({problem}); the rest is delivered:\n"
            f"  {self._set_aside.damaged_path} lists every damaged place",
        )
        self._save(end)

    def _save(self, offset: int) -> None:
        try:
            self._offset.save(offset)
        except OSError as problem:
            self._log_once.warn_once(
                "acknowledge",
                f"the delivered position cannot be saved ({problem.strerror}); some lines may be sent again",
            )


# The answers to reports.


class Inbox:
    """The open orders of a run, and what the collector asks: as of its newest answer. A sender fills it."""

    def __init__(self, answered: Iterable[str | int] = ()) -> None:
        """`answered`: keys of the orders that earlier processes have answered."""
        self.orders: tuple[Order, ...] = ()
        self.question: Question | None = None
        """What the collector asks before a person approves a rollback; None: nothing."""
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
        valid_until = self._valid_until  # first: `receive` sets it last
        orders = self.orders
        if valid_until == 0.0:  # nothing has come yet: the order was kept by an earlier process
            return None
        if has_ended or time.monotonic() >= valid_until:
            return "the lease of the run ran out meanwhile"
        if all(each.key != order.key for each in orders):
            return "the collector has withdrawn it meanwhile"
        return None
