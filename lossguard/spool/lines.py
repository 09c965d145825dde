"""One line of a spool: a JSON object whose last field is the checksum of everything before it.

    {"step":7,"time":1.5,"metrics":{"loss":2.5},"crc":"3b03cb37"}

A spool begins with the registration of its run, `{"run":{..},..}`. Later versions of the format name themselves there:
`"version":2`. A spool of another version, or of a pre-release without checksums, is refused untouched.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from zlib import crc32

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import encode_number

Record = dict[str, Any]

VERSION = 1
"""Version of the format. It is not written."""

_CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"\}\n')
_CHECKSUM_LENGTH = len(b',"crc":"00000000"}\n')
_BEGIN = re.compile(rb'\{"(?:run|segment|step|event|restorable|answer|finish)":')

# A record never contains itself: `plain_json` has copied what users pass.
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
_chunks: Callable[[Any, int], Iterable[str]] = _encoder.iterencode  # type: ignore[assignment]
if (make := getattr(json.encoder, "c_make_encoder", None)) is not None:  # `iterencode` makes one each time: 0.6 us
    _chunks = make(None, _encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)


class DamagedLine(ValueError):
    """The line is not as it was written."""


class OtherVersion(ConfigurationError):
    """The spool is of another version of the format; the message says so, and what to do."""


def to_line(record: Record) -> bytes:
    """`record` as a line of strict JSON; non-finite metrics are encoded as in the protocol."""
    try:
        body = "".join(_chunks(record, 0)).encode()[:-1]
    except ValueError:
        metrics = {name: encode_number(value) for name, value in record["metrics"].items()}
        body = "".join(_chunks({**record, "metrics": metrics}, 0)).encode()[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def has_checksum(line: bytes) -> bool:
    """Return True if `line` ends with a checksum, right or wrong."""
    return _CHECKSUM.fullmatch(line, max(0, len(line) - _CHECKSUM_LENGTH)) is not None


def from_line(line: bytes) -> Record:
    """The record of `line`. Raises DamagedLine."""
    if not has_checksum(line):
        raise DamagedLine("a line is incomplete or has no checksum")
    if crc32(line[:-_CHECKSUM_LENGTH]) != int(line[-11:-3], 16):
        raise DamagedLine("the checksum of a line is wrong")
    record: Record = json.loads(line)
    del record["crc"]
    return record


def check_version(name: str, lines: Sequence[bytes]) -> None:
    """Raise OtherVersion where these first lines of a spool say that it is of another version."""
    if not lines or not lines[0].startswith(b'{"run"'):
        return
    found: object = VERSION
    with suppress(ValueError, AttributeError):  # it is damaged
        if any(map(has_checksum, lines)):
            found = from_line(lines[0]).get("version", VERSION)
        elif json.loads(lines[0])["run"].get("id"):
            found = None
    if found != VERSION:
        of = "a pre-release" if found is None else f"another version ({found})"
        raise OtherVersion(
            f"{name} is a spool of {of}, and this one reads version {VERSION}: deliver it with what wrote it"
        )


def intact_end(line: bytes) -> int | None:
    """Return where an intact line begins in a damaged one that lost the newline before it; None if nowhere."""
    if not has_checksum(line):
        return None
    for begin in _BEGIN.finditer(line, 1):
        if crc32(line[begin.start() : -_CHECKSUM_LENGTH]) == int(line[-11:-3], 16):
            return begin.start()
    return None
