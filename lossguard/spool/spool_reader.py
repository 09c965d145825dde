"""The reading end of a spool: its lines, intact and damaged, and how many bytes of them the collector has."""

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

from lossguard.spool.folders import open_private
from lossguard.spool.lines import DamagedLine, OtherVersion, Record, check_version, from_line, intact_end
from lossguard.spool.spool import spools_in

WINDOW = 1 << 18
"""Bytes that are read at once."""
MAX_LINE = 32 << 20
"""Bytes. No collector accepts a longer line; a block without a newline is read in pieces of this size."""

_ACKNOWLEDGED = re.compile(rb"([0-9]{20}) [0-9a-f]{8}\n")
"""An offset with its checksum."""


class SpoolLine(NamedTuple):
    """A line of a spool."""

    begin: int
    """Offset in the file."""
    raw: bytes
    """The line as it stands there, with its newline."""
    record: Record
    """Empty for a damaged line."""
    problem: str = ""
    """The damage, in a few words; empty for an intact line."""

    @property
    def end(self) -> int:
        """Offset of the line after it."""
        return self.begin + len(self.raw)


class SpoolReader:
    """Lines of a spool or of its archive. Raises OSError when it cannot be read, and OtherVersion."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_compressed = path.suffix == ".gz"
        self._file = (gzip.open if self._is_compressed else open)(path, "rb")
        try:
            check_version(str(path), [raw for _, raw in self.raw_lines(0)])
        except OtherVersion:
            self.close()
            raise

    def raw_lines(self, offset: int, size: int = WINDOW) -> list[tuple[int, bytes]]:
        """Complete lines from `offset` on, with their offsets: about `size` bytes, at least one line if any.

        A block of MAX_LINE bytes without a newline, which nobody wrote, counts as a line.
        """
        return list(_split(self._block(offset, size), offset))

    def lines(self, offset: int) -> Iterator[SpoolLine]:
        """The lines of a window from `offset` on; what stands before an intact line that lost its newline is one."""
        for begin, raw in self.raw_lines(offset):
            yield from _decoded(begin, raw)

    def records(self, *kinds: str, end: int | None = None) -> Iterator[SpoolLine]:
        """The intact lines before `end`; `kinds`: only those whose first field is one of these.

        Fast where they are rare: blocks of the file without them are not split into lines.
        """
        begins, offset = tuple(b'{"%b"' % kind.encode() for kind in kinds) or (b"",), 0
        while (end is None or offset < end) and (data := self._block(offset, 4 * WINDOW)):
            if any(begin in data for begin in begins):
                for position, raw in _split(data, offset):
                    if any(begin in raw for begin in begins):
                        for line in _decoded(position, raw):
                            if line.record and line.raw.startswith(begins) and (end is None or line.begin < end):
                                yield line
            offset += len(data)

    def newest_first(self, end: int | None = None) -> Iterator[Record]:
        """The intact records before the offset `end`, from the last one back."""
        end = self.size() if end is None else end
        window = end if self._is_compressed else WINDOW  # going back in a compressed file reads it from its beginning
        while end > 0:
            begin = max(0, end - window)
            raw_lines = self.raw_lines(begin, end - begin)[begin > 0 :]  # the first one may begin before the window
            if begin > 0 and not raw_lines:
                window *= 2
                continue
            for line in (line for found in reversed(raw_lines) for line in reversed([*_decoded(*found)])):
                if line.record and line.end <= end:
                    yield line.record
            end = raw_lines[0][0] if raw_lines else 0

    def last_step(self, end: int | None = None) -> tuple[int, float] | None:
        """The newest step before the offset `end` and its time; of a segment without steps, those of its beginning."""
        for record in self.newest_first(end):
            if "metrics" in record:
                return record["step"], record["time"]
            if "segment" in record:
                return record["fork_step"] - 1, record["time"]
        return None

    def size(self) -> int:
        """Bytes of lines in the file now."""
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _block(self, offset: int, size: int) -> bytes:
        """Whole lines from `offset` on; empty if there is no whole line."""
        data = self._read(offset, size)
        while b"\n" not in data and len(data) == size:  # a line longer than the window
            if size >= MAX_LINE:
                return data
            size = min(2 * size, MAX_LINE)
            data = self._read(offset, size)
        return data[: data.rfind(b"\n") + 1]

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size) or b""


def _split(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    for line in io.BytesIO(data):  # bytes.splitlines would also split at a carriage return
        yield offset, line
        offset += len(line)


def _decoded(begin: int, raw: bytes) -> Iterator[SpoolLine]:
    """The line; where the newline before an intact one is lost, the damaged bytes and the intact line."""
    try:
        yield SpoolLine(begin, raw, from_line(raw))
    except DamagedLine as problem:
        intact = intact_end(raw)
        yield SpoolLine(begin, raw[:intact], {}, str(problem))
        if intact is not None:
            yield SpoolLine(begin + intact, raw[intact:], from_line(raw[intact:]))


def files_in(directory: Path, *suffixes: str) -> list[Path]:
    """One file for each spool that is or was in `directory`, oldest first: with the first of `suffixes` that exists.

    A spool may be archived meanwhile: then its archive is found here or by `read_file`.
    """
    found: dict[str, Path] = {}
    for suffix in suffixes:  # in this order: an archive is there before its spool is gone
        for path in directory.glob(f"*{suffix}"):
            found.setdefault(path.name.removesuffix(suffix), path)
    return [found[name] for name in sorted(found)]


def read_file(path: Path) -> SpoolReader:
    """A reader of a file that `files_in` has found, or of what it was archived to since. Raises OSError."""
    for each in (path, path.with_suffix(".spool.gz")):
        with suppress(FileNotFoundError):
            return SpoolReader(each)
    return SpoolReader(path.with_suffix(".control"))


def registration_of(reader: SpoolReader) -> tuple[dict[str, Any], bool]:
    """(the registration of a spool's run, whether the spool itself begins with it).

    If that line is damaged, another one of the run's spools counts; without any, the names of the folders, which are
    those of the project and the run.
    """
    for line in reader.records("run", end=1):
        return line.record["run"], True
    folder = reader.path.parent
    for path in [reader.path, *spools_in(folder)]:
        with SpoolReader(path) as other:
            for line in other.records("run"):
                return line.record["run"], False
    names = {"id": folder.name, "project": unquote(folder.parent.name), "name": folder.name}
    return {**names, "config": {}, "capabilities": [], "started_at": reader.path.stat().st_mtime}, False


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
