"""A table of text that fits the terminal: long texts are cut, then the least important columns are left out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from lossguard.commands.terminal import Style, Text, printable, width_of

GAP = "  "
ELLIPSIS = "…"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    right: bool = False
    """Aligned to the right, as numbers are."""
    min_width: int | None = None
    """To how many characters its texts may be cut; None: they are never cut."""
    rank: int = 0
    """Where the table is too wide, the columns of the highest rank are left out first; those of rank 0 stay."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int | None) -> list[list[Text]]:
    """The lines of the table, its head included, each as pieces; `width` None: nothing is cut."""
    cells = [[Text(printable(cell.text), cell.style) for cell in row] for row in rows]
    kept, widths = _fitted(columns, cells, width)
    head = [Text(columns[i].title, Style.DIM) for i in kept]
    lines = [head, *([row[i] for i in kept] for row in cells)]
    return [_line([columns[i] for i in kept], line, [widths[i] for i in kept]) for line in lines]


def _fitted(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int | None
) -> tuple[list[int], dict[int, int]]:
    """(the columns that stay, the width of each)."""
    natural = {
        i: max([width_of(column.title), *(width_of(row[i].text) for row in cells)]) for i, column in enumerate(columns)
    }
    kept = list(natural)
    while width is not None:
        narrowest = {i: _narrowest(columns[i], natural[i]) for i in kept}
        rank = max(columns[i].rank for i in kept)
        if _total(narrowest) <= width or rank == 0:
            break
        kept.remove(next(i for i in reversed(kept) if columns[i].rank == rank))
    widths = {i: natural[i] for i in kept}
    return kept, widths if width is None else _shrunk(columns, widths, width)


def _narrowest(column: Column, natural: int) -> int:
    return natural if column.min_width is None else min(natural, max(column.min_width, width_of(column.title)))


def _shrunk(columns: Sequence[Column], widths: dict[int, int], width: int) -> dict[int, int]:
    """The widest column that may be cut is cut, again and again, until the table fits."""
    while _total(widths) > width:
        can_shrink = [i for i in widths if widths[i] > _narrowest(columns[i], widths[i])]
        if not can_shrink:
            break
        widths[max(can_shrink, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _line(columns: Sequence[Column], cells: Sequence[Text], widths: Sequence[int]) -> list[Text]:
    pieces: list[Text] = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = cut(cell.text, width)
        blanks = " " * (width - width_of(text))
        pieces += [Text(GAP)] if pieces else []
        pieces.append(Text(blanks + text if column.right else text + blanks, cell.style))
    return pieces


def cut(text: str, width: int) -> str:
    """The beginning of the text that fits, with an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + ELLIPSIS
