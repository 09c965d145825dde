"""Tables of bounded size, as the template shows them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import pandas as pd

from dashboard.data.tables import in_zone


@dataclass(frozen=True, slots=True)
class ReportTable:
    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    num_omitted: int = 0
    """Rows that are left out."""
    last_is_total: bool = False


def bounded_table(
    frame: pd.DataFrame, zone: tzinfo, *, max_rows: int, max_letters: int, max_table_letters: int
) -> ReportTable:
    """The first rows, with at most `max_table_letters` together; cells with more than `max_letters` are cut."""
    cells: list[list[str]] = []
    letters_left = max_table_letters
    for row in in_zone(frame, zone).head(max_rows).itertuples(index=False, name=None):
        texts = [cut(cell, max_letters) for cell in row]
        letters_left -= sum(map(len, texts))
        if letters_left < 0:
            break
        cells.append(texts)
    return ReportTable(list(frame.columns), cells, len(frame) - len(cells))


def cut(cell: Any, max_letters: int) -> str:
    """The text of `cell`, at most its first `max_letters`."""
    text = str(cell)
    return text if len(text) <= max_letters else f"{text[:max_letters]} .. ({len(text):,} characters)"
