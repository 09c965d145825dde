"""Takes the lines of one spool to the collector, in order.

Every request may be sent again: keys and offsets make that harmless.
"""

import json
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

from lossguard.delivery.client import Client
from lossguard.errors import NotFound, Rejected
from lossguard.log_once import LogOnce
from lossguard.orders import Order
from lossguard.protocol import SPOOL_HEADER
from lossguard.spooling.spool import SpoolReader

STEPS_PER_REPORT = 1000
APPLIED = ("rewound_to", "skip_from", "skip_to", "detail")
"""What PUT /orders takes of a segment line's `applied`."""

Body = dict[str, Any]
Line = tuple[int, bytes, dict[str, Any]]
"""Offset in the spool, the line as written, and what it says."""


class Delivery:
    def __init__(self, path: Path, client: Client, receive: Callable[[list[Order]], None], notices: LogOnce) -> None:
        self._path = path
        self._reader = SpoolReader(path)
        self._rejected = path.with_name("rejected.jsonl")
        self._client = client
        self._receive = receive
        self._notices = notices
        self._recalled = False
        self._run = ""
        self._segment: int | None = None
        self._limit = STEPS_PER_REPORT
        self.refused = ""
        """Why the collector takes nothing of this spool; it stays on the disk, undelivered."""
        self._damaged = False

    def advance(self) -> bool:
        """Deliver what comes next: one report, or one line that is no part of one. Returns False when there is none.

        Raises Unreachable or NotFound; then nothing was acknowledged and the same comes next again.
        """
        if not self._recalled and not self.refused:
            self._recall()
        if self.refused or self._damaged:
            return False
        lines = self._next()
        if not lines:
            return False
        _, _, record = lines[0]
        batch = [line for line in takewhile(lambda line: in_report(line[2]), lines)] or lines[:1]
        try:
            if in_report(record):
                behind = batch[-1][0] + len(batch[-1][1])
                self._report(report(self._reader.session, self._segment, batch), self._reader.size() - behind)
            else:
                self._control(record)
            self._limit = min(2 * self._limit, STEPS_PER_REPORT)  # bad lines seldom come alone
        except Rejected as problem:
            if lines[0][0] == 0:
                self._give_up(problem)
                return False
            if len(batch) > 1:  # look for the bad line instead of giving up good ones
                self._limit = len(batch) // 2
                return True
            self._set_aside(batch[0][1], problem)
        last_offset, last_line, _ = batch[-1]
        self._acknowledge(last_offset + len(last_line))
        return True

    def heartbeat(self) -> None:
        """Ask for orders while there is nothing to deliver. Raises as `advance`."""
        if self._segment is not None:
            self._report({"segment": self._segment, "steps": []}, self._reader.size() - self._reader.offset)

    def close(self) -> None:
        self._reader.close()

    def _recall(self) -> None:
        """Take up a spool in the middle: whose it is, and the segment that was open at the acknowledged offset."""
        first = self._reader.lines(0)
        if not first:
            return
        try:
            self._run = str(json.loads(first[0][1])["run"]["id"])
            last = self._reader.last_segment()
            segment = None if last is None else dict(json.loads(last))
        except (ValueError, KeyError, TypeError) as problem:
            self._pass_over(problem)
            return
        if segment is not None:
            try:
                self._open_segment(segment)
            except Rejected as problem:
                self._give_up(problem)
                return
        self._recalled = True

    def _give_up(self, problem: Rejected) -> None:
        """Without a run or a segment no step can be sent, and asking again would change nothing."""
        self.refused = f"{self._client.url} refuses {self._run} ({problem})"
        self._notices.say(
            f"refused {self.refused}",
            f"the collector at {self.refused}: nothing more of {self._path} is delivered; its steps are kept there",
        )

    def _pass_over(self, problem: Exception) -> None:
        self._damaged = True
        self._notices.say(
            f"damaged {self._path}",
            f"{self._path} is damaged ({type(problem).__name__}: {problem}) and cannot be delivered; it is kept",
        )
        self._acknowledge(self._path.stat().st_size)

    def _next(self) -> list[Line]:
        lines: list[Line] = []
        for offset, line in self._reader.lines(self._reader.offset):
            try:
                record = dict(json.loads(line))
            except (ValueError, TypeError) as problem:
                if lines:
                    break  # deliver what is before it first
                self._set_aside(line, problem)
                self._acknowledge(offset + len(line))
                continue
            lines.append((offset, line, record))
            if len(lines) == self._limit:
                break
        return lines

    def _control(self, record: dict[str, Any]) -> None:
        if "run" in record:
            self._client.request("POST", "/runs", record["run"])
        elif "segment" in record:
            self._open_segment(record)
            if record["order"] is not None:
                applied = record["applied"] or {}
                how = {name: applied[name] for name in APPLIED if name in applied}
                self._answer(record, record["order"], "applied", **how)
        elif "answer" in record:
            self._answer(record, record["answer"], record["state"], detail=record["detail"])
        elif "finish" in record:
            self._client.request("POST", f"/runs/{self._run}/finish", {"state": record["finish"], "at": record["time"]})

    def _open_segment(self, record: dict[str, Any]) -> None:
        body = {"key": f"{self._reader.session}-{record['segment']}", "opened_at": record["time"]}
        body |= {name: record[name] for name in ("fork_step", "reason", "order")}
        path = f"/runs/{self._run}/segments"
        try:
            answer = self._client.request("POST", path, body)
        except Rejected:
            if record["order"] is None:
                raise
            answer = self._client.request("POST", path, {**body, "order": None})  # steps matter more than who asked
        self._segment = int(answer["segment"])

    def _answer(self, record: dict[str, Any], order: int, state: str, **how: Any) -> None:
        """The key lets the collector refuse an answer to an order of another run that has the same id."""
        if record.get("key") is not None:
            how["key"] = record["key"]
        try:
            self._client.request("PUT", f"/orders/{order}", {"state": state, **how})
        except NotFound as problem:  # the order is what is unknown; bringing everything again would not help
            raise Rejected(str(problem)) from problem

    def _report(self, body: Body, left: int) -> None:
        answer = self._client.request("POST", f"/runs/{self._run}/reports", body, headers={SPOOL_HEADER: str(left)})
        orders = []
        for order in answer.get("orders", ()):
            try:
                orders.append(Order.from_wire(order))
            except (KeyError, TypeError, ValueError) as problem:
                self._notices.say(f"order {problem}", f"an order was not understood: {problem}")
        self._receive(orders)

    def _acknowledge(self, offset: int) -> None:
        try:
            self._reader.acknowledge(offset)
        except OSError as problem:
            self._notices.say("acknowledge", f"what was delivered cannot be noted down ({problem.strerror})")

    def _set_aside(self, line: bytes, problem: Exception) -> None:
        try:
            with self._rejected.open("ab") as rejected:
                rejected.write(line)
        except OSError:
            self._notices.say("rejected", f"{self._rejected} cannot be written")
        self._notices.say(
            "rejected", f"the collector refused a line ({problem}); such lines are kept in {self._rejected}"
        )


def in_report(record: dict[str, Any]) -> bool:
    return "step" in record or "restorable" in record


def report(session: str, segment: int | None, lines: list[Line]) -> Body:
    """The body of POST /reports for `lines`: columns of equal length, null where a step has no such metric."""
    steps = [record for _, _, record in lines if "metrics" in record]
    names = dict.fromkeys(name for record in steps for name in record["metrics"])
    body: Body = {
        "segment": segment,
        "steps": [record["step"] for record in steps],
        "times": [record["time"] for record in steps],
        "metrics": {name: [record["metrics"].get(name) for record in steps] for name in names},
        "events": [_event(f"{session}-{offset}", record) for offset, _, record in lines if "event" in record],
    }
    for _, _, record in lines:
        if "restorable" in record:
            body["restorable_steps"] = record["restorable"]
    return body


def _event(key: str, record: dict[str, Any]) -> Body:
    return {
        "key": key,
        "step": record["step"],
        "time": record["time"],
        "kind": record["event"],
        "details": record["details"],
    }
