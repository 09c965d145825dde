"""A measured figure, and how a table of them is printed."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`target` is the most that `value` may be; None where nothing was set."""

    name: str
    value: float
    unit: str
    target: float | None
    comparison: str

    def cells(self) -> tuple[str, str, str, str]:
        target = "" if self.target is None else f"at most {self.target:g} {self.unit}"
        met = "" if self.target is None else (" (met)" if self.value <= self.target else " (NOT met)")
        return self.name, f"{self.value:.3g} {self.unit}", target + met, self.comparison


def print_rows(rows: Iterable[Row]) -> None:
    """A Markdown table, as docs/benchmarks.md has it."""
    print("| figure | measured | target | beside it |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |", flush=True)
