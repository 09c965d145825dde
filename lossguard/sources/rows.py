"""The rows of a source: what it logged for one step, under its own names, or scalar by scalar."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from lossguard.vocabulary.protocol import MAX_STEP
from lossguard.vocabulary.source_facts import SourceFacts

HOLD_SECONDS = 1.0
"""Seconds for which a row waits for names that its predecessors had, unless the source has a pause of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one step. Names are those of the source; NaN and infinities are as they were logged."""

    step: int
    time: float | None
    """Unix seconds; None where the source does not say."""
    values: dict[str, float]


@dataclass(slots=True)
class RowBuilder:
    """Joins scalars that arrive one by one into rows. A row is complete when a later step comes, on `flush`, or after a
    pause that is shorter where it has all names that the two rows before it had.

    A name that goes back to an earlier step of its own says that the run was rewound: the open row is complete, and the
    next one has the earlier step. A value that only comes late (of a name that has not been there yet) joins the open
    row, or the next one: a row that is complete is never changed. Names that count samples beside ones that count steps
    are left out.
    """

    quiet: float = 0.0
    """Seconds without another value after which a row with all usual names is complete."""
    long_quiet: float = HOLD_SECONDS
    """Seconds without another value after which any row is complete: the loop may hang."""
    _open: Row | None = None
    _touched_at: float = 0.0  # when the newest value came
    _newest: tuple[Row, ...] = ()  # the last two that are complete
    _complete_step: int = -1  # of the newest row that is complete
    _late: dict[str, float] = field(default_factory=dict)  # for the next row
    _last_steps: dict[str, int] = field(default_factory=dict)  # of each name
    _counts_steps: bool = False  # a name that counts steps has come

    def add(self, name: str, value: float, step: int, time: float | None = None, now: float = 0.0) -> list[Row]:
        """Take in one scalar; return the row that it completes, if any. `now`: by the clock of `flush_if_quiet`."""
        self._touched_at = now
        if counts_samples(name):
            if self._counts_steps:
                return []
        elif not self._counts_steps:
            self._counts_steps = True
            if self._open is not None:  # all of it counts samples
                self._open = None
                self._last_steps.clear()
        is_rewind = step < self._last_steps.get(name, step)
        is_repeated = step == self._last_steps.get(name) == self._complete_step
        if is_rewind:
            self._last_steps.clear()
            self._late.clear()
        self._last_steps[name] = step
        is_complete = self._open is not None and (step > self._open.step or is_rewind)
        complete = self.flush() if is_complete else []
        if self._open is None and step <= self._complete_step and not is_rewind:
            if not is_repeated:
                self._late[name] = value
        elif self._open is None:
            self._open = Row(step, time, {**self._late, name: value})
            self._late.clear()
        else:
            self._open.values[name] = value
        return complete

    def flush(self) -> list[Row]:
        """Return the open row, if there is one: nothing more comes for it."""
        if self._open is None:
            return []
        complete, self._open = self._open, None
        self._complete_step, self._newest = complete.step, (*self._newest[-1:], complete)
        return [complete]

    def flush_if_quiet(self, now: float) -> list[Row]:
        """Return the open row if nothing more is expected for it at `now`."""
        names = set(self._open.values if self._open is not None else ())
        usual = set.intersection(*(set(row.values) for row in self._newest)) if self._newest else set()
        quiet = self.quiet if usual and names >= usual else self.long_quiet
        return self.flush() if now - self._touched_at >= quiet else []

    @property
    def is_open(self) -> bool:
        """True if a row has begun that is not complete."""
        return self._open is not None

    def close(self) -> list[Row]:
        """The open row, and what came late that no row has followed, as a row of the last step: nothing more comes."""
        rows = self.flush()
        if self._late:
            rows.append(Row(self._complete_step, None, self._late))
            self._late = {}
        return rows

    def join_next(self, values: Mapping[str, float]) -> None:
        """Late values for the next row."""
        self._late.update(values)


@lru_cache(4096)  # it is asked for each value
def counts_samples(name: str) -> bool:
    """Whether the x axis of `name` is the number of samples, as in Megatron-LM's "lm loss vs samples" and DeepSpeed's
    "Train/Samples/train_loss"."""
    return name.endswith(" vs samples") or "/Samples/" in name


# Lines of files, a row each. Here because what relays a command's output imports no more than this.


class LineParser:
    """Reads the lines of one file, in order."""

    config: Mapping[str, Any] = {}
    """Recorded as the configuration of the run."""
    facts = SourceFacts()
    """Facts about how the rows are made, as far as the format says."""
    ends = b"\n"
    """The bytes that end a line."""
    reads_headers = False
    """True if any line may name the columns of those after it."""
    problem = ""
    """Reason why the last line is left out, or a value of it, in a few words; empty where nothing is."""

    def parse(self, line: bytes) -> Row | None:
        """The values of a line; None for one that has none."""
        raise NotImplementedError

    def shows(self, row: Row) -> bool:
        """Return True if this row shows that the file is of this format."""
        return True

    def begin_anew(self) -> None:
        """The next line is the first of a file."""

    def is_whole(self, line: bytes) -> bool:
        """Return True if a last line without its end can be taken as it is, when nothing more comes."""
        return False  # a number may be cut off


# Scalars in the order in which they were logged, as rows.


class StoredScalar(NamedTuple):
    """One value of a metric, as a store keeps it."""

    time: float
    """Unix seconds; 0 where the store does not say."""
    step: int
    name: str
    value: float


def joined(scalars: Iterable[StoredScalar]) -> Iterator[Row]:
    """Scalars of one step are one row. Those without a valid step are left out."""
    builder = RowBuilder()
    for time, step, name, value in scalars:
        if 0 <= step < MAX_STEP:
            yield from builder.add(name, value, step, time or None)
    yield from builder.flush()
