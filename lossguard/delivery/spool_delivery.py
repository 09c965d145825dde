"""Delivers the lines of one spool to the collector, in order: most of them as the columns of reports.

Every request may be repeated: keys and offsets make that harmless. Damaged lines, and lines that the collector rejects,
are set aside; whatever a spool contains, the lines after them are delivered.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from lossguard.client.client import Client
from lossguard.delivery.hardware import Sample
from lossguard.spool.lines import Record
from lossguard.spool.set_aside import DamagedRange, SetAside
from lossguard.spool.spool import session_of
from lossguard.spool.spool_reader import WINDOW, AcknowledgedOffset, SpoolLine, SpoolReader, registration_of
from lossguard.spool.writer import WRITER_HEADER, Writer
from lossguard.vocabulary.errors import Conflict, LogOnce, NotFound, Rejected, Unreachable
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import SPOOL_HEADER
from lossguard.vocabulary.states import SegmentReason
from lossguard.vocabulary.wire import Notice, Question

MAX_STEPS_PER_REPORT = 1000
APPLIED_FIELDS = ("rewound_to", "skip_from", "skip_to", "detail", "compared")
"""Fields of a segment line's `applied` that PUT /orders accepts."""
TOO_MUCH = (408, 429)
"""Answers after which a smaller report is sent."""

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
        "events": [],
    }
    for line in lines:
        if "event" in line.record:
            event = {"key": f"{session}-{before + line.begin}", "kind": line.record["event"]}
            body["events"].append(event | {name: line.record[name] for name in ("step", "time", "details")})
        elif "restorable" in line.record:
            body |= restorable(line.record)
    return body


def restorable(record: Record) -> Body:
    """The part of a report that says which steps can be restored."""
    body = {"restorable_steps": record["restorable"], "restorable_tiers": record.get("tiers")}
    return body | {"preflight": record["preflight"]} if "preflight" in record else body


class Delivery:
    """One spool on its way to the collector; `advance` sends what comes next."""

    def __init__(
        self,
        path: Path,
        client: Client,
        receive: Callable[[list[Order], float, Question | None], None],
        log_once: LogOnce,
        set_aside: SetAside,
        writer: Writer | None = None,
    ) -> None:
        """`receive`: called with the open orders of each answer, with when the lease ends by the monotonic clock, and
        with what the collector asks. Raises OSError when the spool cannot be read."""
        self.path = path
        self._session, self._before = session_of(path)
        self._reader = SpoolReader(path)
        self._offset = AcknowledgedOffset(path)  # up to which everything is delivered or set aside
        self._newest_time, self._newest_segment = 0.0, -1  # of the acknowledged lines
        self._client = client
        self._receive = receive
        self._log_once = log_once
        self._set_aside = set_aside
        self._writer = writer
        self._headers = {} if writer is None else {WRITER_HEADER: writer.to_header()}
        self._was_ignored = False  # another process had the lease
        self._is_ready = False  # the run and the open segment are known
        self._run = ""
        self._substitute: Body | None = None  # registration of a run whose own is damaged
        self._segment: int | None = None
        self._has_ended = False  # the collector knows the end of the run: a report would take the lease again
        self._last_step: int | None = None  # of the open segment, as far as this process knows
        self._max_lines = MAX_STEPS_PER_REPORT
        self.refused = ""
        """Reason why the collector refuses this spool, which stays on the disk; empty if it does not."""

    def advance(self) -> bool:
        """Deliver the next report, or the next line that belongs to no report. Returns False when nothing is left.

        Raises CollectorError; then nothing was acknowledged, and the next call sends the same again.
        """
        if not self._is_ready and not self.refused:
            self._resume()
        if self.refused or not self._is_ready:
            return False
        begin = self._offset.value
        lines = self._next_lines()
        if not lines:
            return self._offset.value > begin
        batch = [*takewhile(lambda line: in_report(line.record), lines)] or lines[:1]
        try:
            batch = self._send(batch)
            self._max_lines = min(2 * self._max_lines, MAX_STEPS_PER_REPORT)  # bad lines often come in groups
        except Unreachable as problem:
            if problem.status in TOO_MUCH:  # too slow a network, or too little room for so many lines
                self._max_lines = max(1, len(batch) // 2)
            raise
        except Rejected as problem:
            if batch[0].begin == 0:
                self._refuse_spool(problem)
                return False
            if len(batch) > 1:  # search for the bad line, so that the good ones are kept
                self._max_lines = len(batch) // 2
                return True
            self._set_aside.reject(batch[0].raw)
            kept = f"rejected lines are kept in {self._set_aside.rejected_path}"
            self._log_once.warn_once("rejected", f"the collector rejected a line ({problem}); {kept}")
        for line in batch:
            self._newest_time = max(self._newest_time, line.record.get("time", 0.0))
            self._newest_segment = max(self._newest_segment, line.record.get("segment", -1))
        self._save(batch[-1].end)
        return True

    def heartbeat(self) -> None:
        """Ask for orders while there is nothing to deliver. Raises like `advance`."""
        if self._segment is not None:
            self._report({"segment": self._segment, "steps": []}, self._offset.value)
        elif self._run and not self.refused and self._writer is not None:
            # A loop that takes long to begin keeps its run.
            with suppress(NotFound, Conflict):  # another process, as reports will say
                self._request("POST", f"/runs/{self._run}/lease", {})

    def send_hardware(self, samples: list[Sample]) -> bool:
        """Send samples of the hardware in a report of their own: no step is lost where they are refused.

        Returns whether they need not be sent again. Raises Unreachable, Unauthorised and NotFound like `advance`.
        """
        if self._segment is None or self._has_ended or self.refused:
            return False
        try:
            self._report({"segment": self._segment, "steps": [], "hardware": samples}, self._offset.value)
        except Rejected as problem:
            self._log_once.warn_once("hardware", f"the collector refuses samples of the hardware ({problem})")
        return True

    def incomplete_line(self) -> str:
        """Once `advance` returns False: where the line lies that was never completed; empty if there is none."""
        begin, size = self._offset.value, self._reader.size()
        is_whole = self.refused or begin == size
        return "" if is_whole else f"bytes {begin} to {size} of {self.path} (an incomplete line)"

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self._offset.close()

    def _next_lines(self) -> list[SpoolLine]:
        """The next intact lines. Empty: nothing is left, or only damage was, which is set aside."""
        lines: list[SpoolLine] = []
        damaged: list[SpoolLine] = []
        for line in self._reader.lines(self._offset.value):
            if line.problem and lines:
                break  # deliver the lines before it first
            (damaged if line.problem else lines).append(line)
            if len(lines) == self._max_lines:
                break
        if damaged:
            begin, end, problem = damaged[0].begin, damaged[-1].end, damaged[0].problem
            self._set_aside.add(DamagedRange(spool=self.path.name, begin=begin, end=end, problem=problem))
            self._log_once.warn_once(
                f"damaged {self.path}",
                f"{self.path} is damaged at bytes {begin} to {end} ({problem}); the rest is delivered:\n"
                f"  {self._set_aside.damaged_path} lists every damaged place",
            )
            self._save(end)
        return lines

    def _save(self, offset: int) -> None:
        try:
            self._offset.save(offset)
        except OSError as problem:
            self._log_once.warn_once(
                "acknowledge",
                f"the delivered position cannot be saved ({problem.strerror}); some lines may be sent again",
            )

    def _without_repeated(self, lines: list[SpoolLine]) -> list[SpoolLine]:
        """`lines` without those that the disk wrote twice: the same bytes, with the same time, stand before them."""
        kept, newest = [], self._newest_time
        for line in lines:
            time = line.record.get("time", newest)
            is_repeated = line.record.get("segment", math.inf) <= self._newest_segment
            if not is_repeated and "time" in line.record and time <= newest:
                before = self._reader.raw_lines(max(0, line.begin - WINDOW))
                is_repeated = any(begin < line.begin and raw == line.raw for begin, raw in before)
            if not is_repeated:
                newest = max(newest, time)
                kept.append(line)
        return kept

    def _resume(self) -> None:
        """Find out the run, and open the segment that was open at the acknowledged offset."""
        if not self._reader.raw_lines(0):
            return
        registration, is_own = registration_of(self._reader)
        self._run = registration["id"]
        self._substitute = None if is_own else registration
        begin = self._offset.value
        segments = [(line.begin, line.record) for line in self._reader.records("segment", end=begin)]
        opened = [(each.begin, each.opened) for each in self._set_aside.of(self.path) if each.opened is not None]
        opened = segments + [(offset, record) for offset, record in opened if offset < begin]
        if opened:
            try:
                self._open_segment(max(opened, key=lambda each: each[0])[1])
            except Rejected as problem:
                self._refuse_spool(problem)
                return
        last = self._reader.last_step(begin)
        self._last_step, self._newest_time = (None, 0.0) if last is None else last
        self._newest_segment = max((record["segment"] for _, record in segments), default=-1)
        self._is_ready = True

    def _refuse_spool(self, problem: Rejected) -> None:
        """Without a run or a segment no step can be sent, and another attempt would change nothing."""
        self.refused = f"{self._client.url} refuses {self._run} ({problem})"
        self._log_once.warn_once(
            f"refused {self.refused}",
            f"the collector at {self.refused}: {self.path} is not delivered any further; its steps stay there",
        )

    def _send(self, batch: list[SpoolLine]) -> list[SpoolLine]:
        """Send the lines of a report, those before a lost segment line first, or one other line.

        Returns those that are done.
        """
        lines = self._without_repeated(batch)
        if lines and in_report(lines[0].record):
            sent, begins_segment = self._of_one_segment(lines)
            if begins_segment:
                self._open_missing_segment(sent[0].begin, sent[0].record)
            self._report(report(self._session, self._segment, sent, before=self._before), sent[-1].end)
            steps = [line.record["step"] for line in sent if "metrics" in line.record]
            self._last_step = max(steps, default=self._last_step)
            return batch if sent[-1] is lines[-1] else batch[: batch.index(sent[-1]) + 1]
        if lines:
            self._send_control_line(lines[0].record)
        return batch

    def _send_control_line(self, record: Record) -> None:
        if "run" in record:
            answer = self._request("POST", "/runs", record["run"])
            if problem := answer.get("policy_problem"):
                self._log_once.warn_once(
                    "policy",
                    f"the collector at {self._client.url} does not take the policy of this run, which only observes:"
                    f" {problem}",
                )
        elif "segment" in record:
            self._open_segment(record)
            if record["order"] is not None:
                applied = record["applied"] or {}
                fields = {name: applied[name] for name in APPLIED_FIELDS if name in applied}
                self._answer(record, record["order"], "applied", **fields)
        elif "answer" in record:
            fields = {name: record[name] for name in ("detail", "refusal") if record.get(name) is not None}
            self._answer(record, record["answer"], record["state"], **fields)
        elif "finish" in record:
            body = {"state": record["finish"], "at": record["time"]}
            headers = {}
            if self._writer is not None:  # in the name of the session that has ended
                headers[WRITER_HEADER] = replace(self._writer, session=self._session).to_header()
            self._request_of_run("finish", body, headers=headers)
            self._has_ended = True

    def _request_of_run(self, route: str, body: Body, **options: Any) -> Any:
        """POST to a route of the run, which is registered first if its own registration is damaged."""
        path = f"/runs/{self._run}/{route}"
        try:
            return self._request("POST", path, body, **options)
        except NotFound:
            if self._substitute is None:
                raise
            self._request("POST", "/runs", self._substitute)
            return self._request("POST", path, body, **options)

    def _open_segment(self, record: Record) -> None:
        body = {"key": f"{self._session}-{record['segment']}", "opened_at": record["time"]}
        body |= {name: record[name] for name in ("fork_step", "reason", "order")}
        self._segment = None  # should this fail, no step belongs to the segment before
        self._has_ended = False
        try:
            answer = self._request_of_run("segments", body)
        except Rejected:
            if record["order"] is None:
                raise
            answer = self._request_of_run("segments", {**body, "order": None})  # the steps matter more than the order
        self._segment = int(answer["segment"])
        self._last_step = None if record["fork_step"] is None else record["fork_step"] - 1

    def _open_missing_segment(self, offset: int, record: Record) -> None:
        """The line that opened the segment of the line at `offset` is damaged or rejected: open one for what follows.

        It has no fork step: the collector takes that from the first report.
        """
        reason = SegmentReason.RESUME if self._last_step is None else SegmentReason.REWIND
        opened = {"segment": f"at-{self._before + offset}", "fork_step": None, "reason": reason, "order": None}
        opened["time"] = record.get("time", self.path.stat().st_mtime)
        self._open_segment(opened)
        self._set_aside.add(
            DamagedRange(spool=self.path.name, begin=offset, end=offset, problem="no segment", opened=opened)
        )

    def _answer(self, record: Record, order: int, state: str, **fields: Any) -> None:
        """The key lets the collector reject an answer to another run's order with the same id."""
        try:
            self._request("PUT", f"/orders/{order}", {"state": state, "key": record["key"], **fields})
        except NotFound as problem:  # the order is unknown, not the run: starting over would not help
            raise Rejected(str(problem)) from problem

    def _of_one_segment(self, batch: list[SpoolLine]) -> tuple[list[SpoolLine], bool]:
        """(the first lines that belong together, whether the line that opened their segment is lost).

        It is lost if a step goes back: `run.log` opens a segment for such a step.
        """
        last = self._last_step
        for position, line in enumerate(batch):
            if "metrics" in line.record:
                step = line.record["step"]
                if last is not None and step <= last:
                    return (batch[:position], self._segment is None) if position else (batch[:1], True)
                last = step if last is None else max(last, step)
        return batch, self._segment is None

    def _report(self, body: Body, end: int) -> None:
        """Send a report, with the number of bytes that wait behind the offset `end`; take in the answer."""
        sent_at = time.monotonic()
        headers = {SPOOL_HEADER: str(self._reader.size() - end)}
        answer = self._request_of_run("reports", body, headers=headers)
        orders = []
        for order in answer.get("orders", ()):
            try:
                orders.append(Order.from_wire(order))
            except (KeyError, TypeError, ValueError) as problem:
                self._log_once.warn_once(
                    f"order {problem}", f"an order was ignored, because it cannot be decoded: {problem}"
                )
        for notice in Notice.all_in(answer) if "notices" in answer else ():
            self._log_once.warn_once(f"notice {notice.key}", notice.text)
        asked = Question.from_wire(answer["preflight"]) if answer.get("preflight") is not None else None
        self._receive(orders, sent_at + self._lease_seconds(answer), asked)
        if self._was_ignored and answer.get("lease"):
            self._repeat_what_was_ignored()

    def _repeat_what_was_ignored(self) -> None:
        """Only the process with the lease says what the run can do, and which steps it can restore: say it again."""
        end = self._offset.value
        for line in deque(self._reader.records("run", end=end), maxlen=1):
            self._request("POST", "/runs", line.record["run"])
        for line in deque(self._reader.records("restorable", end=end), maxlen=1):
            self._request_of_run("reports", {"segment": self._segment, "steps": [], **restorable(line.record)})
        self._was_ignored = False

    def _lease_seconds(self, answer: dict[str, Any]) -> float:
        """Seconds for which this process may carry out orders; as long as it likes where it has not said who it is."""
        seconds = answer.get("lease")
        if not isinstance(seconds, int | float):
            return math.inf
        if seconds <= 0:
            self._was_ignored = True
            other = str(answer.get("writer") or "another process")
            self._log_once.warn_once(
                "lease",
                f"{other} writes the run {self._run!r} too: this process carries out no orders until that has ended; "
                "its steps are recorded",
            )
        elif self._was_ignored:
            self._log_once.reset("lease")
        return float(seconds)

    def _request(self, method: str, path: str, body: Body, *, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request that says which process sends it."""
        return self._client.request(method, path, body, headers={**self._headers, **(headers or {})})
