"""What the first rows of a source were, and what they were mapped to: a short table for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lossguard.sources.facts import EVERY_STEP, SourceFacts
from lossguard.sources.names import NameMap

PREVIEW_ROWS = 100
"""Rows after which the preview is complete."""
MAX_OWN_NAMES = 12
"""Names without a metric that the table lists; it counts the others."""


@dataclass(slots=True)
class _Column:
    first: float
    last: float
    num_rows: int = 1


@dataclass(slots=True)
class Preview:
    """The first PREVIEW_ROWS rows of a source."""

    names: NameMap
    facts: SourceFacts = EVERY_STEP
    """How the rows are made, as far as it is known."""
    num_rows: int = 0
    first_step: int | None = None
    last_step: int | None = None
    _columns: dict[str, _Column] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.num_rows >= PREVIEW_ROWS

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take in the next row, under the names of the source."""
        self.num_rows += 1
        self.first_step = step if self.first_step is None else self.first_step
        self.last_step = step
        for name, value in values.items():
            column = self._columns.get(name)
            if column is None:
                self._columns[name] = _Column(value, value)
            else:
                column.last, column.num_rows = value, column.num_rows + 1

    def text(self) -> str:
        """The table, without colours: name in the source, metric, first and last value, rows. Ends with a newline."""
        if not self._columns:
            return "no rows yet\n"
        lines = [f"{self._rows()}, steps {self.first_step} to {self.last_step}:"]
        cells = [("name in the source", "recorded as", "first", "last", "rows")]
        mapped = {name: self.names.target_of(name) for name in self._columns}
        known = [name for name, target in mapped.items() if self.names.chosen.get(target) == name]
        own = [name for name in mapped if name not in known]
        for name in [*known, *own[:MAX_OWN_NAMES]]:
            column = self._columns[name]
            target = mapped[name] if mapped[name] != name or name in known else self._own(name)
            cells.append((name, target, f"{column.first:.6g}", f"{column.last:.6g}", str(column.num_rows)))
        widths = [max(len(row[k]) for row in cells) for k in range(5)]
        for row in cells:
            name, target, *numbers = row
            right = "  ".join(cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=True))
            lines.append(f"  {name.ljust(widths[0])}  {target.ljust(widths[1])}  {right}")
        if len(own) > MAX_OWN_NAMES:
            lines.append(f"  and {len(own) - MAX_OWN_NAMES} more under their own names")
        if "loss" not in self.names.chosen:
            lines.append(
                "No name is known to be the loss, so nothing is detected on it: --map loss=NAME says which one is."
            )
        return "\n".join([*lines, *self.facts.describe(), *self.missing()]) + "\n"

    def _rows(self) -> str:
        return f"the first {self.num_rows} rows" if self.num_rows > 1 else "the first row"

    def _own(self, name: str) -> str:
        """What the table says of a name that is no metric here."""
        metric = self.names.metric_of(name)
        return "(its own name)" if metric is None else f"(its own name: {metric} is {self.names.chosen[metric]})"

    def missing(self) -> list[str]:
        """A sentence for each name of --map that has not come."""
        return [
            f"--map {metric}={self.names.overrides[metric]}: no such name in {self._rows()}; "
            f"names there: {', '.join(list(self._columns)[:20])}."
            for metric in self.names.missing()
        ]
