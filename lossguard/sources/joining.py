"""Parts of rows, with their positions in a source, into rows that are recorded once: whatever was read before is known.

A source that is flushed in the middle of a step must not delay the detection for long: see `RowBuilder`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lossguard.sources.names import NameMap
from lossguard.sources.positions import Recorded
from lossguard.sources.rows import Row, RowBuilder
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.protocol import encode_number

MAX_RETURNS = 5
"""Jumps back and at once forth again, within RETURN_WINDOW rows, that show two runs writing one source."""
RETURN_WINDOW = 32


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row, and where it begins in the source: reading goes on there."""

    row: Row
    position: Any


@dataclass(slots=True)
class Joiner:
    """The scalars of a source joined to rows, without those that are recorded."""

    names: NameMap
    recorded: Recorded | None = None
    """The newest row of the source that the spool has; reading began at its position."""
    live_rows: Callable[[], Mapping[int, Mapping[str, Any]]] = dict
    """Step -> metrics of the rows that are recorded."""
    place: object = "the source"
    """The source, for people."""
    position_of: Callable[[Any], Any] = lambda place: place
    """Returns for a place, as `add` gets it, the position that the spool keeps."""
    _builder: RowBuilder = field(default_factory=RowBuilder)
    _begins_at: Any = None  # place of the open row
    _last_position: Any = None  # of the newest row that was new
    _newest: Row | None = None
    _num_rows: int = 0
    _known: Mapping[int, Mapping[str, Any]] | None = None  # what a source that begins anew may repeat
    _last_step: int = -1
    _left_at: int | None = None  # the step before the last jump back
    _returns: deque[int] = field(default_factory=lambda: deque(maxlen=MAX_RETURNS))  # numbers of the rows that were one

    def __post_init__(self) -> None:
        if self.recorded is not None:
            self._last_step = self.recorded.step

    def add(self, part: Row, place: Any, now: float) -> list[PlacedRow]:
        """Take in values of one step; returns the rows that they complete. `now`: by the monotonic clock."""
        complete: list[PlacedRow] = []
        for name, value in part.values.items():
            complete += self.add_value(name, value, part.step, part.time, place, now)
        return complete

    def add_value(
        self, name: str, value: float, step: int, time: float | None, place: Any, now: float
    ) -> list[PlacedRow]:
        """Take in one value of a step; return the rows that it completes."""
        complete = self._builder.add(name, value, step, time, now)
        placed = self._placed(complete) if complete else []
        if complete or (self._begins_at is None and self._builder.is_open):  # not a value that comes late
            self._begins_at = place
        return placed

    def flush(self, now: float, *, final: bool = False) -> list[PlacedRow]:
        """The open row, if nothing more is expected for it; `final`: nothing more comes at all."""
        complete = self._placed(self._builder.flush() if final else self._builder.flush_if_quiet(now))
        if not self._builder.is_open:
            self._begins_at = None
        # What came late and no row has followed, such as a last evaluation, is for the last row.
        late = self._builder.close() if final else []
        if late and self._newest is not None:
            values = {name: value for name, value in late[0].values.items() if name not in self._newest.values}
            if values:
                complete.append(PlacedRow(Row(self._last_step, None, values), self._last_position))
        return complete

    def begin_anew(self) -> list[PlacedRow]:
        """The source begins at its beginning again: rows that it repeats are known."""
        complete = self._placed(self._builder.flush())
        self._builder, self._begins_at = RowBuilder(), None
        if self._last_step >= 0:
            self.recorded = None
            self._known = {}
        return complete

    def _placed(self, rows: list[Row]) -> list[PlacedRow]:
        placed = []
        for row in rows:
            if self._is_known(row):
                continue
            self._num_rows += 1
            if row.step <= self._last_step or self._left_at is not None:
                self._check_returns(row.step)
            self._newest = row
            self._last_step = row.step
            self._last_position = self.position_of(self._begins_at)
            placed.append(PlacedRow(row, self._last_position))
        return placed

    def _is_known(self, row: Row) -> bool:
        """Return True if the row is recorded already; what it has in addition joins the next one."""
        recorded, self.recorded = self.recorded, None
        if recorded is not None and recorded.step == row.step:
            self._keep_additional(row, recorded.metrics)
            return True
        if self._known is None:
            return False
        if row.step <= self._last_step:
            self._known = self._known or self.live_rows()
            metrics = self._known.get(row.step)
            if metrics is not None and self._agrees(row, metrics):
                if row.step == self._last_step:
                    self._keep_additional(row, metrics)
                return True
        self._known = None
        return False

    def _agrees(self, row: Row, metrics: Mapping[str, Any]) -> bool:
        values = {self.names.target_of(name): encode_number(value) for name, value in row.values.items()}
        return all(values.get(name) == value for name, value in metrics.items() if not self.names.is_released(name))

    def _keep_additional(self, row: Row, metrics: Mapping[str, Any]) -> None:
        if metrics:
            target = self.names.target_of
            self._builder.join_next({name: value for name, value in row.values.items() if target(name) not in metrics})

    def _check_returns(self, step: int) -> None:
        """Raises BadSource when rows of two runs alternate: back, and at the next row ahead of where it was before."""
        is_return = self._left_at is not None and step > self._left_at
        self._left_at = self._last_step if step <= self._last_step else None
        if not is_return:
            return
        self._returns.append(self._num_rows)
        if len(self._returns) == MAX_RETURNS and self._num_rows - self._returns[0] < RETURN_WINDOW:
            raise BadSource(
                f"{self.place}: two runs write it (its steps jump from {self._last_step} to {step}): give each run a "
                "place of its own"
            )
