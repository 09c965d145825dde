"""The output of a command: plain text that no run can turn into commands to the terminal, and tables that fit it.

Colours: on a terminal only, and not where NO_COLOR is set or TERM is `dumb`. Other characters than ASCII: where the
output can encode them.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TextIO

ASCII = {"…": "~", "▲": "^", "▼": "v", "✕": "x", "±": "+-"}
"""Replacements for characters that the output cannot encode."""
MIN_WIDTH = 20


class Style(StrEnum):
    """Codes of ECMA-48 (ANSI)."""

    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    BLUE = "34"


class Text(NamedTuple):
    """A piece of a line."""

    text: str
    style: Style | None = None


def printable(text: str) -> str:
    """Without the characters with which a text of a run, or of its data, could steer a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def printable_lines(text: str) -> str:
    """Return several lines without what is not printable."""
    return "\n".join(map(printable, text.split("\n")))


def width_of(text: str) -> int:
    """The columns that a printable text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


@dataclass(frozen=True, slots=True)
class Terminal:
    """The output of a command."""

    out: TextIO
    width: int | None
    """Columns; None where nothing has to fit: in a file or a pipe."""
    has_colours: bool
    has_unicode: bool

    @classmethod
    def of(cls, out: TextIO | None = None, environment: Mapping[str, str] | None = None) -> "Terminal":
        """Standard output by default."""
        out, env = out or sys.stdout, os.environ if environment is None else environment
        is_terminal = out.isatty()
        width = max(MIN_WIDTH, shutil.get_terminal_size().columns) if is_terminal else None
        has_colours = is_terminal and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        return cls(out, width, has_colours, _encodes("▁█▲✕…", out))

    @property
    def chart_width(self) -> int:
        """Columns for a chart: also where nothing has to fit it has a width (COLUMNS, else 80)."""
        return self.width or max(MIN_WIDTH, shutil.get_terminal_size().columns)

    def say(self, *parts: str | Text) -> None:
        """Print one line."""
        line = "".join(self._rendered(Text(each) if isinstance(each, str) else each) for each in parts)
        print(line.rstrip(), file=self.out, flush=True)

    def _rendered(self, part: Text) -> str:
        text = printable(part.text)
        if not text.isascii() and not _encodes(text, self.out):
            text = "".join(ASCII.get(each, each) for each in text)
            encoding = self.out.encoding or "ascii"
            text = text.encode(encoding, errors="replace").decode(encoding)
        return f"\x1b[{part.style.value}m{text}\x1b[0m" if part.style and self.has_colours else text


def _encodes(text: str, out: TextIO) -> bool:
    try:
        text.encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """Print one JSON value; without `indent` on one line."""
    print(json.dumps(value, indent=indent, allow_nan=False), flush=True)


# Tables: long texts are cut, then the least important columns are left out.

GAP = "  "
ELLIPSIS = "…"


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminalColumn:
    """One column of a table."""

    title: str
    right: bool = False
    """Aligned to the right, as numbers are."""
    min_width: int | None = None
    """To how many characters its texts may be cut; None: they are never cut."""
    rank: int = 0
    """Columns of the highest rank are left out first if the table is too wide; those of rank 0 stay."""


def table(columns: Sequence[TerminalColumn], rows: Sequence[Sequence[Text]], width: int | None) -> list[list[Text]]:
    """The lines of the table, its head included, each as pieces; `width` None: nothing is cut."""
    cells = [[Text(printable(cell.text), cell.style) for cell in row] for row in rows]
    kept, widths = _fitted(columns, cells, width)
    head = [Text(columns[i].title, Style.DIM) for i in kept]
    lines = [head, *([row[i] for i in kept] for row in cells)]
    return [_line([columns[i] for i in kept], line, [widths[i] for i in kept]) for line in lines]


def _fitted(
    columns: Sequence[TerminalColumn], cells: Sequence[Sequence[Text]], width: int | None
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


def _narrowest(column: TerminalColumn, natural: int) -> int:
    return natural if column.min_width is None else min(natural, max(column.min_width, width_of(column.title)))


def _shrunk(columns: Sequence[TerminalColumn], widths: dict[int, int], width: int) -> dict[int, int]:
    """The widest column that may be cut is cut, again and again, until the table fits."""
    while _total(widths) > width:
        can_shrink = [i for i in widths if widths[i] > _narrowest(columns[i], widths[i])]
        if not can_shrink:
            break
        widths[max(can_shrink, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _line(columns: Sequence[TerminalColumn], cells: Sequence[Text], widths: Sequence[int]) -> list[Text]:
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
