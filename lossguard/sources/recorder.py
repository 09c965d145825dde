"""Rows of a source into a recorded run: mapped names, their own times, and how the rows were made."""

from collections.abc import Iterable

from lossguard.metrics import COUNTS
from lossguard.run import Run
from lossguard.sources.facts import SOURCE, SourceFacts
from lossguard.sources.names import NameMap
from lossguard.sources.preview import Preview
from lossguard.sources.rows import Row


class RunRecorder:
    """Writes rows into `run`. A step that is not greater than the last one begins a new segment, as in `Run.log`.

    `known`: what the caller knows of the source, by its tracker or its configuration.
    """

    def __init__(self, run: Run, names: NameMap | None = None, known: SourceFacts | None = None) -> None:
        self.run = run
        self.names = names or NameMap()
        self.facts = known or SourceFacts()
        """How the rows are made, as far as it is known."""
        self.preview = Preview(self.names)
        if self.facts != SourceFacts():
            self._declare()

    def write(self, rows: Iterable[Row]) -> None:
        """Record the rows. Never raises into a training loop: the run warns once about what it cannot record."""
        for row in rows:
            self.write_row(row)

    def write_row(self, row: Row) -> None:
        values = self.names.mapped(row.values)
        if not self.preview.is_complete:
            self.preview.add(row.step, row.values)
        for name in COUNTS:
            count = values.get(name)
            if type(count) is float and count.is_integer():
                values[name] = int(count)
        self.run.log_row(row.step, values, row.time)

    def _declare(self) -> None:
        self.run.declare(SOURCE, **self.facts.to_details())
