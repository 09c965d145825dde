"""The body of a report, made of lines of a spool."""

from typing import Any

from lossguard.spooling.lines import Record

Body = dict[str, Any]
Line = tuple[int, bytes, Record]
"""Offset in the spool, the line as written, and its decoded record."""


def in_report(record: Record) -> bool:
    """Whether a line is sent as a part of a report."""
    return "step" in record or "restorable" in record


def report(session: str, segment: int | None, lines: list[Line], *, before: int = 0) -> Body:
    """The body of POST /reports for `lines`: columns of equal length, null where a step has no such metric.

    `before`: bytes in the session's files before the one of these lines.
    """
    steps = [record for _, _, record in lines if "metrics" in record]
    names = dict.fromkeys(name for record in steps for name in record["metrics"])
    body: Body = {
        "segment": segment,
        "steps": [record["step"] for record in steps],
        "times": [record["time"] for record in steps],
        "metrics": {name: [record["metrics"].get(name) for record in steps] for name in names},
        "events": [_event(f"{session}-{before + offset}", record) for offset, _, record in lines if "event" in record],
    }
    for _, _, record in lines:
        if "restorable" in record:
            body |= restorable(record)
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
