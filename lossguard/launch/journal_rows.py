"""From the entries of a journal to rows: scalars that arrive one by one become one row per step."""

from dataclasses import dataclass, field
from typing import Any

from lossguard.sources.rows import Row, RowBuilder

QUIET_SECONDS = 0.5
"""Without another scalar, a row is complete that has every name of the row before it."""
LONG_QUIET_SECONDS = 5.0
"""Seconds after which a row is complete whatever it has: the loop may hang."""


@dataclass(slots=True)
class JournalRows:
    """Joins entries. A value that comes after its row was recorded joins the next row: a row never changes."""

    _builder: RowBuilder = field(default_factory=RowBuilder)
    _late: dict[str, float] = field(default_factory=dict)
    _last_step_of: dict[str, int] = field(default_factory=dict)
    _written: int = -1  # the newest step that was returned
    _open_names: set[str] = field(default_factory=set)
    _usual_names: set[str] = field(default_factory=set)  # of the row before
    _open_step: int | None = None
    _newest_at: float = 0.0
    begin: int | None = None
    """Offset of the first entry that is in no returned row yet; None: all are."""

    def add(self, entry: dict[str, Any], offset: int) -> list[Row]:
        """Take in the scalars of one call; returns the rows that it completes."""
        step, time, complete = int(entry["step"]), float(entry["time"]), entry.get("complete") is True
        self._newest_at = time
        rows: list[Row] = []
        for name, value in entry["values"].items():
            before = self._last_step_of.get(name, -1)
            self._last_step_of[name] = step
            if before <= step <= self._written:  # its row is gone, and it is no rewind
                if step > before:  # else it is logged again for the same step, as the epoch is
                    self._late[name] = float(value)
                    self.begin = offset if self.begin is None else self.begin
                continue
            if step < before:
                self._written = -1
                self._last_step_of = {name: step}
            rows += self._noted(self._builder.add(name, float(value), step, time), offset)
            self._open_names.add(name)
            self._open_step = step
        return rows + self.flush() if complete and self._open_names else rows

    def flush_if_quiet(self, now: float) -> list[Row]:
        """The open row, if nothing more of it is expected at `now` (unix seconds)."""
        if not self._open_names:
            return []
        quiet = now - self._newest_at
        is_whole = bool(self._usual_names) and self._open_names >= self._usual_names
        return self.flush() if quiet >= (QUIET_SECONDS if is_whole else LONG_QUIET_SECONDS) else []

    def flush(self) -> list[Row]:
        """The open row: nothing more of it comes."""
        return self._noted(self._builder.flush(), None)

    def finish(self) -> list[Row]:
        """What is left at the end of the child; late values get a row of their own, one step later."""
        rows = self.flush()
        if self._late:
            rows.append(Row(self._written + 1, self._newest_at, self._late))
            self._late, self.begin = {}, None
        return rows

    def _noted(self, rows: list[Row], offset: int | None) -> list[Row]:
        """The rows with the late values; `offset`: of the entry that begins the next row."""
        for row in rows:
            row.values.update({name: value for name, value in self._late.items() if name not in row.values})
            self._late = {}
            self._written = max(self._written, row.step)
            self._usual_names, self._open_names = self._open_names, set()
        if rows or self.begin is None:
            self.begin = offset
        return rows
