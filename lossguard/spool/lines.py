"""One line of a spool: a JSON object whose last field is the checksum of everything before it.

    {"step":7,"time":1.5,"metrics":{"loss":2.5},"crc":"3b03cb37"}

A release without checksums reads such a line too: it ignores the field. Its own lines have none, and are still read.
"""

import json
import re
from typing import Any
from zlib import crc32

from lossguard.vocabulary.protocol import encode_number, is_run_id

Record = dict[str, Any]

_KINDS = {"run", "segment", "metrics", "event", "restorable", "answer", "finish"}

_CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"\}\n')
_CHECKSUM_LENGTH = len(b',"crc":"00000000"}\n')
_BEGIN = re.compile(rb'\{"(?:run|segment|step|event|restorable|answer|finish)":')

# A record never contains itself: `plain_json` has copied what users pass.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


class DamagedLine(ValueError):
    """The line is not as it was written."""


def to_line(record: Record) -> bytes:
    """`record` as a line of strict JSON; non-finite metrics are encoded as in the protocol."""
    try:
        body = _encode(record).encode()[:-1]
    except ValueError:
        metrics = {name: encode_number(value) for name, value in record["metrics"].items()}
        body = _encode({**record, "metrics": metrics}).encode()[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def has_checksum(line: bytes) -> bool:
    """Whether `line` ends with a checksum, right or wrong. No line of a release without checksums does."""
    return _CHECKSUM.fullmatch(line, max(0, len(line) - _CHECKSUM_LENGTH)) is not None


def from_line(line: bytes, *, checksums: bool) -> Record:
    """The record of `line`; `checksums`: the lines of its file have checksums. Raises DamagedLine."""
    if has_checksum(line):
        if crc32(line[:-_CHECKSUM_LENGTH]) != int(line[-11:-3], 16):
            raise DamagedLine("the checksum of a line is wrong")
        record: Record = json.loads(line)
        del record["crc"]
        return record
    if checksums or not line.endswith(b"\n"):
        raise DamagedLine("a line is incomplete or has no checksum")
    try:
        record = json.loads(line)
        _encode(record)  # refuses NaN and 1e999, which no request can carry
    except (ValueError, RecursionError):
        raise DamagedLine("a line is not JSON") from None
    if not isinstance(record, dict):
        raise DamagedLine("a line is not a JSON object")
    return record


def intact_end(line: bytes) -> int | None:
    """Where an intact line begins in a damaged one, which lost the newline between them; None if nowhere."""
    if not has_checksum(line):
        return None
    for begin in _BEGIN.finditer(line, 1):
        if crc32(line[begin.start() : -_CHECKSUM_LENGTH]) == int(line[-11:-3], 16):
            return begin.start()
    return None


def is_deliverable(record: Record) -> bool:
    """Whether `record` has the fields and types that its delivery needs: without a checksum they may be anything."""
    if len(_KINDS & record.keys()) != 1:
        return False
    match record:
        case {"run": {"id": str(id)}}:
            return is_run_id(id)
        case {"segment": int(), "fork_step": int(), "reason": str(), "order": order, "applied": applied, "time": time}:
            return isinstance(order, int | None) and isinstance(applied, dict | None) and isinstance(time, int | float)
        case {"step": int(), "time": int() | float(), "metrics": dict()}:
            return True
        case {"event": str(), "step": int(), "time": int() | float(), "details": dict()}:
            return True
        case {"restorable": list()} | {"finish": str(), "time": int() | float()}:
            return True
        case {"answer": int(), "state": str(), "detail": str()}:
            return True
    return False
