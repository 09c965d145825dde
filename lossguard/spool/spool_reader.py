"""The reading end of a spool: its lines by offset, and how many bytes of them the collector has."""

import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from lossguard.spool.folders import open_private
from lossguard.spool.lines import DamagedLine, OtherVersion, Record, check_version, from_line

WINDOW = 1 << 18
"""Bytes that are read at once."""
MAX_LINE = 32 << 20
"""Bytes. No collector accepts a longer line; a block without a newline is read in pieces of this size."""

_ACKNOWLEDGED = re.compile(rb"([0-9]{20}) [0-9a-f]{8}\n")
"""An offset with its checksum."""


class SpoolReader:
    """Lines of the spool at `path`. Raises OSError when it cannot be read, and OtherVersion."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check_version(str(path), [line for _, line in self.lines(0)])
        except OtherVersion:
            self.close()
            raise

    def lines(self, offset: int, size: int = WINDOW) -> list[tuple[int, bytes]]:
        """Complete lines from `offset` on, with their offsets: about `size` bytes, at least one line if any.

        A block of MAX_LINE bytes without a newline, which nobody wrote, counts as a line.
        """
        return list(_lines(self._block(offset, size), offset))

    def lines_with(self, *begins: bytes, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """The lines before `end` that begin with one of `begins` (without any: all), with their offsets.

        Fast where they are rare: blocks of the file without them are not split into lines.
        """
        offset = 0
        while (end is None or offset < end) and (data := self._block(offset, 4 * WINDOW)):
            if not begins or any(begin in data for begin in begins):
                for position, line in _lines(data, offset):
                    if line.startswith(begins or b"") and (end is None or position < end):
                        yield position, line
            offset += len(data)

    def records(self, *kinds: str, end: int | None = None) -> Iterator[tuple[int, Record]]:
        """The intact records before `end` with their offsets; `kinds`: only those whose first field is one of these."""
        for offset, line in self.lines_with(*(b'{"%b"' % kind.encode() for kind in kinds), end=end):
            with suppress(DamagedLine):
                yield offset, from_line(line)

    def last_step(self, end: int) -> tuple[int, float] | None:
        """The newest step before the offset `end` and its time; of a segment without steps, those of its beginning."""
        for offset, line in reversed(self.lines(max(0, end - WINDOW))):
            with suppress(DamagedLine):
                record = from_line(line) if offset + len(line) <= end else {}
                if "metrics" in record:
                    return record["step"], record["time"]
                if "segment" in record:
                    return record["fork_step"] - 1, record["time"]
        return None

    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _block(self, offset: int, size: int) -> bytes:
        """Whole lines from `offset` on; empty if there is no whole line."""
        data = os.pread(self._fd, size, offset)
        while b"\n" not in data and len(data) == size:  # a line longer than the window
            if size >= MAX_LINE:
                return data
            size = min(2 * size, MAX_LINE)
            data = os.pread(self._fd, size, offset)
        return data[: data.rfind(b"\n") + 1]


def _lines(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    for line in io.BytesIO(data):  # bytes.splitlines would also split at a carriage return
        yield offset, line
        offset += len(line)


class AcknowledgedOffset:
    """The number of bytes of the spool at `path` that the collector has, kept in a file beside it."""

    def __init__(self, path: Path) -> None:
        self.value = acknowledged(path)
        self._path = path.with_suffix(".acknowledged")
        self._fd: int | None = None

    def save(self, value: int) -> None:
        """The collector has everything before `value`. If it raises OSError, this process still knows it."""
        self.value = value
        if self._fd is None:
            self._fd = open_private(str(self._path), os.O_WRONLY | os.O_CREAT)
        content = _with_checksum(value)
        os.pwrite(self._fd, content, 0)
        os.ftruncate(self._fd, len(content))

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._fd is not None:
            os.close(self._fd)


def acknowledged(path: Path) -> int:
    """Return how many bytes of the spool at `path` the collector has.

    0 if the saved offset is damaged or is not the end of a line of this spool: delivering again is harmless.
    """
    try:
        match = _ACKNOWLEDGED.fullmatch(path.with_suffix(".acknowledged").read_bytes())
        offset = 0 if match is None else int(match[1])
        if match is None or _with_checksum(offset) != match[0]:
            return 0
        if not 0 < offset <= path.stat().st_size:
            return 0
        with path.open("rb") as spool:
            spool.seek(offset - 1)
            return offset if spool.read(1) == b"\n" else 0
    except OSError:
        return 0


def is_delivered(path: Path) -> bool:
    """Return True if the collector has all that is written of the spool, or if somebody has just archived it."""
    try:
        return acknowledged(path) == path.stat().st_size
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _with_checksum(offset: int) -> bytes:
    digits = b"%020d" % offset
    return b"%b %08x\n" % (digits, zlib.crc32(digits))
