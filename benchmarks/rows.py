"""A measurement, and a Markdown table of measurements."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`target` is the largest acceptable `value`, None if there is none; `comparison` gives context."""

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
    """Print a Markdown table, in the format of docs/benchmarks.md."""
    print("| measurement | value | target | comparison |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |", flush=True)


def heading(title: str, *columns: str) -> str:
    """The head of a Markdown table of other measurements."""
    return f"\n### {title}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns)
