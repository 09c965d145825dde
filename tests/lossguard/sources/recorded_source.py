"""What a watcher has recorded, as its spool would say it: for tests that end and begin it again without a process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossguard.sources import formats
from lossguard.sources.columns import Columns
from lossguard.sources.joining import Joiner
from lossguard.sources.names import NameMap
from lossguard.sources.positions import Recorded
from lossguard.vocabulary.protocol import encode_number


class RecordedSource:
    """`poll` records what is new; `kill` forgets all but what is recorded."""

    def __init__(self, format: str, path: Path, columns: Columns | None = None) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self._format, self._path, self._columns = format, path, columns or Columns()
        self._position: Any = None
        self._follower: Any = None

    def poll(self, *, final: bool = False) -> int:
        """Returns the number of rows that are new."""
        before = len(self.rows)
        if self._follower is None:
            self._begin()
        for placed in self._follower.poll(final=final):
            values = {self._names.target_of(name): encode_number(each) for name, each in placed.row.values.items()}
            self.rows.append((placed.row.step, values))
            self._position = placed.position
        return len(self.rows) - before

    def kill(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._follower = None

    def values(self, name: str) -> list[tuple[int, Any]]:
        return [(step, values[name]) for step, values in self.rows if name in values]

    def _begin(self) -> None:
        self._names = NameMap()
        recorded = None
        if self.rows:
            step, values = self.rows[-1]
            recorded = Recorded(step, values, self._position)
        joiner = Joiner(self._names, recorded, self._live_rows)
        self._follower = formats.follow(self._format, self._path, joiner, self._columns)

    def _live_rows(self) -> dict[int, dict[str, Any]]:
        live: dict[int, dict[str, Any]] = {}
        for step, values in self.rows:
            live = {known: each for known, each in live.items() if known < step} | {step: values}
        return live


def lines(step_losses: list[tuple[int, float]]) -> Iterator[bytes]:
    """Lines as nanoGPT prints them."""
    for step, loss in step_losses:
        yield f"iter {step}: loss {loss:.4f}, time 13.86ms, mfu 26.88%\n".encode()
