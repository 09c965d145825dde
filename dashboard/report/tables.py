"""Tables of bounded size, as the template shows them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import pandas as pd

from dashboard.data.tables import in_zone


@dataclass(frozen=True, slots=True)
class Table:
    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    num_omitted: int = 0
    """Rows that are left out."""
    last_is_total: bool = False


def bounded_table(frame: pd.DataFrame, zone: tzinfo, *, max_rows: int, max_letters: int) -> Table:
    """The first rows; cells with more than `max_letters` are cut."""
    head = in_zone(frame, zone).head(max_rows)
    cells = [[_cut(cell, max_letters) for cell in row] for row in head.itertuples(index=False, name=None)]
    return Table(list(head.columns), cells, len(frame) - len(head))


def _cut(cell: Any, max_letters: int) -> str:
    text = str(cell)
    return text if len(text) <= max_letters else f"{text[:max_letters]} .. ({len(text):,} characters)"
