"""A text file that somebody else writes: its complete lines as they come, however it grows, rotates or starts anew."""

import errno
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lossguard.sources.files.source_files import lies_in, opened

CHUNK = 1 << 20
"""Bytes that are read at once."""
MAX_LINE = 1 << 20
"""Bytes; a longer line is no log line, and is passed over in pieces."""


def rotated_files(path: Path) -> list[Path]:
    """The files that `path` may have been renamed to: train.log.1, train.log-20261126, train-20261126.log."""
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    renamed = re.compile(rf"{stem}{suffix}[.\-_](?!.*\.(?:gz|xz|bz2|zst)$).+|{stem}[.\-_]\d[\d._T:-]*{suffix}")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    found = (each for each in beside if renamed.fullmatch(each.name) and each.is_file())
    return sorted(each for each in found if lies_in(each, path.parent))


@dataclass(frozen=True, slots=True)
class FileLine:
    """A complete line, without its end."""

    text: bytes
    file: str
    """Name of its file: a rotated one is read to its end under its new name."""
    offset: int
    is_first: bool
    """True if the file begins here, or begins anew: what comes may repeat lines that were read before."""

    @property
    def position(self) -> list[object]:
        """Beginning of the line, for `GrowingFile`: file, offset, length and checksum."""
        return [self.file, self.offset, len(self.text), zlib.crc32(self.text)]


class GrowingFile:
    """Reads on from a position; polls with `stat`, and reads only what is new.

    Renamed (rotated): the open file is read to its end, then the new one from its beginning. Truncated or overwritten:
    from the beginning. A line counts once its end is written.
    """

    def __init__(self, path: Path, position: list[object] | None = None, *, ends: bytes = b"\n") -> None:
        """`position`: of a line that was read before, which comes first. `ends`: the bytes that end a line."""
        self.path = path
        self._folder = Path(os.path.realpath(path)).parent  # what takes the place of the file must lie there
        self._ends = ends
        self._fd: int | None = None
        self._identity = (0, 0)
        self._name = path.name
        self._rotated: list[Path] = []  # to be read next, `path` last: what was rotated since the last look
        self.is_resumed = False
        """True if reading goes on at the position that was given."""
        self._begin_anew()
        if position is not None:
            self._find(position)

    def read(self) -> Iterator[FileLine]:
        """The lines that are complete now and were not read before. Raises OSError when the file cannot be read."""
        while True:
            yield from self._read_open_file()
            following = self._following()
            if following is None:
                return
            yield from self._read_open_file()  # what was written between the last look and the renaming
            self._open(following)

    def unfinished(self) -> FileLine | None:
        """Return the text behind the last line end, if there is any."""
        if self._fd is None:
            return None
        rest = os.pread(self._fd, MAX_LINE, self._offset)
        return FileLine(rest, self._name, self._offset, self._is_first) if rest.strip() else None

    def num_lines_before(self, offset: int) -> int:
        """Return the number of lines of the open file that end before `offset`."""
        assert self._fd is not None
        starts = range(0, offset, CHUNK)
        return sum(os.pread(self._fd, min(CHUNK, offset - start), start).count(self._ends[:1]) for start in starts)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _find(self, position: list[object]) -> None:
        """Open the file that has this line: the one of that name, or what it was renamed to."""
        _, offset, length, checksum = position
        assert isinstance(offset, int)
        assert isinstance(length, int)
        for path in [self.path, *rotated_files(self.path)]:
            with suppress(OSError), opened(path) as file:
                file.seek(offset)
                text = file.read(length)
                if len(text) == length and zlib.crc32(text) == checksum:
                    self._open(path)
                    self._offset, self._is_first, self.is_resumed = offset, False, True
                    return

    def _following(self) -> Path | None:
        """The file that follows the open one; None if there is none."""
        if not self._rotated:
            try:
                stat = self.path.stat()
            except FileNotFoundError:
                return None  # it may come, or come back
            if self._fd is None:
                return self.path
            if (stat.st_dev, stat.st_ino) == self._identity:
                return None
            self._rotated = [*self._rotated_since(os.fstat(self._fd)), self.path]
        return self._rotated.pop(0)

    def _rotated_since(self, present: os.stat_result) -> list[Path]:
        """Files that were rotated after the one that is open, oldest first: two rotations between two looks."""
        files: list[tuple[int, Path]] = []
        for path in rotated_files(self.path):
            with suppress(OSError):
                stat = path.stat()
                if stat.st_mtime_ns > present.st_mtime_ns and (stat.st_dev, stat.st_ino) != self._identity:
                    files.append((stat.st_mtime_ns, path))
        return [path for _, path in sorted(files)]

    def _open(self, path: Path) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self._folder):  # also where the folder became a link
            raise OSError(errno.ELOOP, "a link leads out of its folder")
        self.close()
        with opened(path) as file:
            self._fd = os.dup(file.fileno())
        stat = os.fstat(self._fd)
        self._identity, self._name = (stat.st_dev, stat.st_ino), path.name
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._offset = 0
        self._before = b""  # bytes before the offset as they were read: other ones mean another content
        self._is_first = True
        self._signature: tuple[int, ...] | None = None

    def _read_open_file(self) -> Iterator[FileLine]:
        if self._fd is None:
            return
        try:
            stat = os.fstat(self._fd)
        except OSError as problem:
            if problem.errno != errno.ESTALE:
                raise
            self.close()  # it was deleted, and NFS keeps no open file
            return
        signature = (stat.st_size, stat.st_mtime_ns)
        if signature == self._signature:
            return
        before = os.pread(self._fd, len(self._before), self._offset - len(self._before))
        if stat.st_size < self._offset or before != self._before:
            self._begin_anew()
        self._signature = signature  # of before: what is written meanwhile is read by the next call
        size = CHUNK
        while data := os.pread(self._fd, size, self._offset):
            end = max(data.rfind(bytes([each])) for each in self._ends) + 1
            if end == 0 and len(data) < size:
                return  # the line is being written
            if end == 0 and size < MAX_LINE:
                size *= 2
                continue
            end, size = end or len(data), CHUNK
            offset = self._offset
            self._offset += end
            self._before = data[max(0, end - 256) : end]
            yield from self._lines(data[:end], offset)

    def _lines(self, data: bytes, offset: int) -> Iterator[FileLine]:
        for other in self._ends[1:]:
            data = data.replace(bytes([other]), self._ends[:1])
        for text in data.split(self._ends[:1])[:-1]:
            if text:
                yield FileLine(text, self._name, offset, self._is_first)
                self._is_first = False
            offset += len(text) + 1
