"""From the entries of a journal to rows: scalars that arrive one by one become one row per step."""

from dataclasses import dataclass, field
from typing import Any

from lossguard.sources.rows import Row, RowBuilder

TEXT = "text"
"""What entries name as their tracker when they were read from printed lines."""
QUIET_SECONDS = 0.5
"""Without another scalar, a row is complete that has every name of the row before it."""
LONG_QUIET_SECONDS = 5.0
"""Seconds after which a row is complete whatever it has: the loop may hang."""


@dataclass(slots=True)
class JournalRows:
    """Joins entries, and knows when a row is complete although no later step has come."""

    begin: int | None = None
    """Offset of the first entry that is in no returned row yet; None: all are."""
    _builder: RowBuilder = field(default_factory=RowBuilder)
    _newest_step: int = -1  # that was returned
    _open_names: set[str] = field(default_factory=set)
    _usual_names: set[str] = field(default_factory=set)  # of the row before
    _newest_at: float = 0.0

    def add(self, entry: dict[str, Any], offset: int) -> list[Row]:
        """Take in the scalars of one call; returns the rows that it completes."""
        step, self._newest_at = int(entry["step"]), float(entry["time"])
        rows: list[Row] = []
        for name, value in entry["values"].items():
            completed = self._builder.add(name, float(value), step, self._newest_at)
            self._note(completed)
            rows += completed
            if self._builder.is_open:  # else it comes late, and joins the next row
                self._open_names.add(name)
            self.begin = offset if self.begin is None else self.begin
        return rows + self.flush() if entry.get("complete") is True else rows

    def flush_if_quiet(self, now: float) -> list[Row]:
        """The open row, if nothing more of it is expected at `now` (unix seconds)."""
        if not self._open_names:
            return []
        is_whole = bool(self._usual_names) and self._open_names >= self._usual_names
        is_quiet = now - self._newest_at >= (QUIET_SECONDS if is_whole else LONG_QUIET_SECONDS)
        return self.flush() if is_quiet else []

    def flush(self) -> list[Row]:
        """The open row: nothing more of it comes."""
        rows = self._builder.flush()
        self._note(rows)
        return rows

    def close(self) -> list[Row]:
        """The open row, and what came late after the last one: the journal has ended."""
        rows = self._builder.close()
        self._note(rows)
        return rows

    def _note(self, completed: list[Row]) -> None:
        for row in completed:
            if row.step > self._newest_step:  # not what comes late, as the result of an evaluation does
                self._usual_names = self._open_names
            self._newest_step, self._open_names, self.begin = row.step, set(), None
