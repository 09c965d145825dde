"""The journal of a command as its launcher reads it: entries, their rows, and how far both are recorded."""

import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lossguard.sources.rows import Row, RowBuilder
from lossguard.spool.folders import lock_file
from lossguard.spool.spool_reader import AcknowledgedOffset, SpoolReader

QUIET_SECONDS, LONG_QUIET_SECONDS = 0.5, 5.0
"""The pauses of the rows: see `RowBuilder`."""
TEXT_AFTER = 60.0
"""Seconds from the first printed row after which such rows are recorded, unless a tracker was called meanwhile."""
MAX_HELD = 10_000
"""Printed rows that wait for a tracker's call; with more of them, none is waited for any longer."""
GOES_ON = "the command has ended, and a process that it started goes on unrecorded: start that in the foreground"

logger = logging.getLogger("lossguard")


class JournalRows(RowBuilder):
    """Joins scalars that arrive one by one, and remembers where the first one begins that is in no returned row."""

    begin: int | None = None
    """Offset of the first entry that is in no returned row yet; None: all are."""

    def __init__(self) -> None:
        super().__init__(QUIET_SECONDS, LONG_QUIET_SECONDS)

    def add_entry(self, entry: dict[str, Any], offset: int) -> list[Row]:
        """Take in the scalars of one call; return the rows that it completes."""
        step, at = int(entry["step"]), float(entry["time"])
        rows: list[Row] = []
        for name, value in entry["values"].items():
            rows += self.add(name, float(value), step, at, at)
            self.begin = offset if self.begin is None else self.begin
        return rows + self.flush() if entry.get("complete") is True else rows

    def flush(self) -> list[Row]:
        rows = super().flush()
        self.begin = None if rows else self.begin
        return rows

    def close(self) -> list[Row]:
        rows = super().close()
        self.begin = None if rows else self.begin
        return rows


class JournalReader:
    """Reads the journal at `path` from where an earlier launcher has recorded it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: SpoolReader | None = None
        self._offset = AcknowledgedOffset(path)
        self.taken = self._offset.value
        """Offset behind the newest entry that was taken in."""
        self.rows = JournalRows()
        self.held: deque[tuple[dict[str, Any], int]] = deque()
        """Printed rows that wait for a tracker's call, with the offsets at which they begin."""

    def has_waited(self, now: float) -> bool:
        """Return True if the printed rows have waited too long at `now` (unix seconds), or are too many to wait."""
        first = next((entry["time"] for entry, _ in self.held if "time" in entry), now)
        return bool(self.held) and (now - first >= TEXT_AFTER or len(self.held) >= MAX_HELD)

    def has(self, kind: str) -> bool:
        """Return True if an entry of this kind is among those that are not taken in yet."""
        return any(kind in entry for entry, _, _ in self.entries())

    def entries(self) -> Iterator[tuple[dict[str, Any], int, int]]:
        """The entries from `taken` on, with the offsets at which they begin and end; {} for one that is cut off."""
        if self._reader is None:
            if not self.path.exists():
                return
            self._reader = SpoolReader(self.path)
        end = self.taken
        while lines := self._reader.raw_lines(end):
            for offset, line in lines:
                end = offset + len(line)
                try:
                    entry = json.loads(line)
                except ValueError:  # cut off by kill -9, and continued by another process of the command
                    entry = {}
                yield entry, offset, end

    def save(self) -> None:
        """Note how far the journal is recorded. Raises OSError."""
        begins = [self.rows.begin, self.held[0][1] if self.held else None]
        offset = min((begin for begin in begins if begin is not None), default=self.taken)
        if offset != self._offset.value:
            self._offset.save(offset)

    def is_still_written(self) -> bool:
        """Log and return True if a process has the lock of the writer of the journal."""
        with suppress(OSError), self.path.open("rb") as file:  # gone, or on a file system without locks
            try:
                lock_file(file, shared=True)  # NFS wants a writable file for an exclusive one
            except BlockingIOError:
                logger.warning(GOES_ON)
                return True
        return False

    def close(self, *, is_done: bool) -> None:
        """Close the files; a journal of which nothing is left is deleted."""
        if self._reader is not None:
            self._reader.close()
        self._offset.close()
        if is_done:
            self.path.unlink(missing_ok=True)
            self.path.with_suffix(".acknowledged").unlink(missing_ok=True)
