"""From the entries of a journal to rows: scalars that arrive one by one become one row per step."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lossguard.sources.rows import Row, RowBuilder

TEXT = "text"
"""Tracker of entries that were read from printed lines."""
QUIET_SECONDS, LONG_QUIET_SECONDS = 0.5, 5.0
"""The pauses of the rows: see `RowBuilder`."""


@dataclass(slots=True)
class JournalRows:
    """Joins entries, and remembers where the first one begins that is in no returned row."""

    begin: int | None = None
    """Offset of the first entry that is in no returned row yet; None: all are."""
    _builder: RowBuilder = field(default_factory=partial(RowBuilder, QUIET_SECONDS, LONG_QUIET_SECONDS))

    def add(self, entry: dict[str, Any], offset: int) -> list[Row]:
        """Take in the scalars of one call; return the rows that it completes."""
        step, at = int(entry["step"]), float(entry["time"])
        rows: list[Row] = []
        for name, value in entry["values"].items():
            rows += self._returned(self._builder.add(name, float(value), step, at, at))
            self.begin = offset if self.begin is None else self.begin
        return rows + self.flush() if entry.get("complete") is True else rows

    def flush_if_quiet(self, now: float) -> list[Row]:
        """Return the open row if nothing more of it is expected at `now` (unix seconds)."""
        return self._returned(self._builder.flush_if_quiet(now))

    def flush(self) -> list[Row]:
        """Return the open row: nothing more of it comes."""
        return self._returned(self._builder.flush())

    def close(self) -> list[Row]:
        """Return the open row, and what came late after the last one: the journal has ended."""
        return self._returned(self._builder.close())

    def _returned(self, rows: list[Row]) -> list[Row]:
        if rows:
            self.begin = None
        return rows
