"""From the lines of a spool to reports, and the orders of their answers."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lossguard.spool.lines import Record
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import SpoolLine, SpoolReader
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.wire import Question

# The body of a report.

Body = dict[str, Any]


def in_report(record: Record) -> bool:
    """Return True if a line is sent as a part of a report."""
    return "step" in record or "restorable" in record


def report(session: str, segment: int | None, lines: list[SpoolLine], *, before: int = 0) -> Body:
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


# The answers to reports.


class Inbox:
    """The open orders of a run, and what the collector asks: as of its newest answer. A sender fills it."""

    def __init__(self, answered: Iterable[str | int] = ()) -> None:
        """`answered`: keys of the orders that earlier processes have answered."""
        self.orders: tuple[Order, ...] = ()
        self.question: Question | None = None
        """The question that the collector has before a person approves a rollback, if any."""
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
