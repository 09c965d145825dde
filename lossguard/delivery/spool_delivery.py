"""Delivers the lines of one spool to the collector, in order.

Every request may be repeated: keys and offsets make that harmless.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from lossguard.delivery.client import Client
from lossguard.errors import Conflict, NotFound, Rejected
from lossguard.log_once import LogOnce
from lossguard.orders import Order
from lossguard.protocol import SPOOL_HEADER
from lossguard.spooling.spool import SpoolReader
from lossguard.writer import WRITER_HEADER, Writer

MAX_STEPS_PER_REPORT = 1000
APPLIED_FIELDS = ("rewound_to", "skip_from", "skip_to", "detail")
"""Fields of a segment line's `applied` that PUT /orders accepts."""

Receive = Callable[[list[Order], float], None]
"""Gets all open orders, and until when they may be carried out, by the monotonic clock."""
Body = dict[str, Any]
Line = tuple[int, bytes, dict[str, Any]]
"""Offset in the spool, the line as written, and its decoded record."""


class Delivery:
    """One spool on its way to the collector; `advance` sends what comes next."""

    def __init__(
        self, path: Path, client: Client, receive: Receive, log_once: LogOnce, writer: Writer | None = None
    ) -> None:
        self._path = path
        self._reader = SpoolReader(path)
        self._rejected_path = path.with_name("rejected.jsonl")
        self._client = client
        self._receive = receive
        self._log_once = log_once
        self._writer = writer
        self._is_ready = False  # the run and the open segment are known
        self._run = ""
        self._segment: int | None = None
        self._max_lines = MAX_STEPS_PER_REPORT
        self.refused = ""
        """Why the collector refuses this spool, which stays on the disk; empty if it does not."""
        self._is_damaged = False

    def advance(self) -> bool:
        """Deliver the next report, or the next line that belongs to no report. Returns False when nothing is left.

        Raises CollectorError; then nothing was acknowledged, and the next call sends the same again.
        """
        if not self._is_ready and not self.refused:
            self._resume()
        if self.refused or self._is_damaged:
            return False
        lines = self._next_lines()
        if not lines:
            return False
        _, _, record = lines[0]
        batch = [line for line in takewhile(lambda line: in_report(line[2]), lines)] or lines[:1]
        try:
            if in_report(record):
                end = batch[-1][0] + len(batch[-1][1])
                self._report(report(self._reader.session, self._segment, batch), self._reader.size() - end)
            else:
                self._send_control_line(record)
            self._max_lines = min(2 * self._max_lines, MAX_STEPS_PER_REPORT)  # bad lines often come in groups
        except Rejected as problem:
            if lines[0][0] == 0:
                self._refuse_spool(problem)
                return False
            if len(batch) > 1:  # search for the bad line, so that the good ones are kept
                self._max_lines = len(batch) // 2
                return True
            self._set_rejected_line_aside(batch[0][1], problem)
        last_offset, last_line, _ = batch[-1]
        self._acknowledge(last_offset + len(last_line))
        return True

    def heartbeat(self) -> None:
        """Ask for orders while there is nothing to deliver. Raises like `advance`."""
        if self._segment is not None:
            self._report({"segment": self._segment, "steps": []}, self._reader.size() - self._reader.offset)
        elif (
            self._run and not self.refused and self._writer is not None
        ):  # a loop that takes long to begin keeps its run
            with suppress(NotFound, Conflict):  # an older collector; another process, as reports will say
                self._request("POST", f"/runs/{self._run}/lease", {})

    def close(self) -> None:
        self._reader.close()

    def _resume(self) -> None:
        """Find out the run, and open the segment that was open at the acknowledged offset."""
        first = self._reader.lines(0)
        if not first:
            return
        try:
            self._run = str(json.loads(first[0][1])["run"]["id"])
            last = self._reader.last_segment()
            segment = None if last is None else dict(json.loads(last))
        except (ValueError, KeyError, TypeError) as problem:
            self._skip_damaged_spool(problem)
            return
        if segment is not None:
            try:
                self._open_segment(segment)
            except Rejected as problem:
                self._refuse_spool(problem)
                return
        self._is_ready = True

    def _refuse_spool(self, problem: Rejected) -> None:
        """Without a run or a segment no step can be sent, and another attempt would change nothing."""
        self.refused = f"{self._client.url} refuses {self._run} ({problem})"
        self._log_once.warn_once(
            f"refused {self.refused}",
            f"the collector at {self.refused}: {self._path} is not delivered any further; its steps stay there",
        )

    def _skip_damaged_spool(self, problem: Exception) -> None:
        self._is_damaged = True
        self._log_once.warn_once(
            f"damaged {self._path}",
            f"{self._path} is damaged ({type(problem).__name__}: {problem}) and cannot be delivered; it is kept",
        )
        self._acknowledge(self._path.stat().st_size)

    def _next_lines(self) -> list[Line]:
        lines: list[Line] = []
        for offset, line in self._reader.lines(self._reader.offset):
            try:
                record = dict(json.loads(line))
            except (ValueError, TypeError) as problem:
                if lines:
                    break  # deliver the lines before it first
                self._set_rejected_line_aside(line, problem)
                self._acknowledge(offset + len(line))
                continue
            lines.append((offset, line, record))
            if len(lines) == self._max_lines:
                break
        return lines

    def _send_control_line(self, record: dict[str, Any]) -> None:
        if "run" in record:
            self._request("POST", "/runs", record["run"])
        elif "segment" in record:
            self._open_segment(record)
            if record["order"] is not None:
                applied = record["applied"] or {}
                fields = {name: applied[name] for name in APPLIED_FIELDS if name in applied}
                self._answer(record, record["order"], "applied", **fields)
        elif "answer" in record:
            self._answer(record, record["answer"], record["state"], detail=record["detail"])
        elif "finish" in record:
            body = {"state": record["finish"], "at": record["time"]}
            self._request("POST", f"/runs/{self._run}/finish", body, session=self._reader.session)

    def _open_segment(self, record: dict[str, Any]) -> None:
        body = {"key": f"{self._reader.session}-{record['segment']}", "opened_at": record["time"]}
        body |= {name: record[name] for name in ("fork_step", "reason", "order")}
        path = f"/runs/{self._run}/segments"
        try:
            answer = self._request("POST", path, body)
        except Rejected:
            if record["order"] is None:
                raise
            answer = self._request("POST", path, {**body, "order": None})  # the steps matter more than the order
        self._segment = int(answer["segment"])

    def _answer(self, record: dict[str, Any], order: int, state: str, **fields: Any) -> None:
        """The key lets the collector reject an answer to another run's order with the same id."""
        if record.get("key") is not None:
            fields["key"] = record["key"]
        try:
            self._request("PUT", f"/orders/{order}", {"state": state, **fields})
        except NotFound as problem:  # the order is unknown, not the run: starting over would not help
            raise Rejected(str(problem)) from problem

    def _report(self, body: Body, remaining_bytes: int) -> None:
        sent_at = time.monotonic()
        path = f"/runs/{self._run}/reports"
        answer = self._request("POST", path, body, headers={SPOOL_HEADER: str(remaining_bytes)})
        orders = []
        for order in answer.get("orders", ()):
            try:
                orders.append(Order.from_wire(order))
            except (KeyError, TypeError, ValueError) as problem:
                self._log_once.warn_once(
                    f"order {problem}", f"an order was ignored, because it cannot be decoded: {problem}"
                )
        self._receive(orders, sent_at + self._lease_seconds(answer))

    def _lease_seconds(self, answer: dict[str, Any]) -> float:
        """How long this process may carry out orders; an older collector gives them to every process."""
        seconds = answer.get("lease")
        if not isinstance(seconds, int | float):
            return math.inf
        if seconds > 0:
            self._log_once.reset("lease")
        else:
            other = str(answer.get("writer") or "another process")
            self._log_once.warn_once(
                "lease",
                f"{other} writes the run {self._run!r} too: this process carries out no orders until that has ended; "
                "its steps are recorded",
            )
        return float(seconds)

    def _request(
        self,
        method: str,
        path: str,
        body: Body,
        *,
        headers: dict[str, str] | None = None,
        session: str | None = None,
    ) -> Any:
        """A request that says which process sends it; `session`: in the name of that one, for the end of a run."""
        headers = dict(headers or {})
        if self._writer is not None:
            headers[WRITER_HEADER] = replace(self._writer, session=session or self._writer.session).to_header()
        return self._client.request(method, path, body, headers=headers)

    def _acknowledge(self, offset: int) -> None:
        try:
            self._reader.acknowledge(offset)
        except OSError as problem:
            self._log_once.warn_once(
                "acknowledge",
                f"the delivered position cannot be saved ({problem.strerror}); some lines may be sent again",
            )

    def _set_rejected_line_aside(self, line: bytes, problem: Exception) -> None:
        try:
            with self._rejected_path.open("ab") as rejected:
                rejected.write(line)
        except OSError:
            self._log_once.warn_once("rejected", f"{self._rejected_path} cannot be written")
        self._log_once.warn_once(
            "rejected", f"the collector rejected a line ({problem}); rejected lines are kept in {self._rejected_path}"
        )


def in_report(record: dict[str, Any]) -> bool:
    """Whether a line is sent as a part of a report."""
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
