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
from enum import StrEnum
from typing import Any, NamedTuple, TextIO

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = dict(zip(BLOCKS, "_.-=+*#@", strict=True)) | {"…": "~", "▲": "^", "▼": "v", "✕": "x", "±": "+-"}
"""Replacements for characters where the output cannot encode all of them."""
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


class TerminalColumn(NamedTuple):
    """One column of a table."""

    title: str
    right: bool = False
    """Aligned to the right, as numbers are."""
    min_width: int | None = None
    """To how many characters its texts may be cut; None: they are never cut."""
    rank: int = 0
    """Columns of the highest rank are left out first if the table is too wide; those of rank 0 stay."""


class Terminal:
    """The output of a command; standard output by default."""

    def __init__(self, out: TextIO | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._out, env = out or sys.stdout, os.environ if environment is None else environment
        is_terminal = self._out.isatty()
        self.chart_width = max(MIN_WIDTH, shutil.get_terminal_size().columns)
        """Columns for a chart: also where nothing has to fit it has a width (COLUMNS, else 80)."""
        self.width = self.chart_width if is_terminal else None
        """Columns; None where nothing has to fit: in a file or a pipe."""
        self.has_colours = is_terminal and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        self._encoding = self._out.encoding or "ascii"
        self._has_unicode = self._encodes("".join(ASCII))

    def say(self, *parts: str | Text) -> None:
        """Print one line."""
        print("".join(map(self._rendered, parts)).rstrip(), file=self._out, flush=True)

    def say_table(self, columns: Sequence[TerminalColumn], rows: Sequence[Sequence[str | Text]]) -> None:
        """Print a table that fits the terminal."""
        for line in table(columns, rows, self.width):
            self.say(*line)

    def _rendered(self, part: str | Text) -> str:
        text, style = _piece(part)
        if not text.isascii() and not (self._has_unicode and self._encodes(text)):
            text = "".join(ASCII.get(each, each) for each in text)
            text = text.encode(self._encoding, errors="replace").decode(self._encoding)
        return f"\x1b[{style.value}m{text}\x1b[0m" if text and style and self.has_colours else text

    def _encodes(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """Print one JSON value; without `indent` on one line."""
    print(json.dumps(value, indent=indent, allow_nan=False), flush=True)


# Tables: long texts are cut, then the least important columns are left out.

GAP = "  "
ELLIPSIS = "…"


def table(
    columns: Sequence[TerminalColumn], rows: Sequence[Sequence[str | Text]], width: int | None
) -> list[list[Text]]:
    """The lines of the table, its head included, each as pieces; `width` None: nothing is cut."""
    head = [Text(column.title, Style.DIM) for column in columns]
    lines = [head, *([_piece(cell) for cell in row] for row in rows)]
    widths = {i: max(width_of(line[i].text) for line in lines) for i in range(len(columns))}
    if width is not None:
        least = {i: _least(column, widths[i]) for i, column in enumerate(columns)}
        while _total(least) > width and (rank := max(columns[i].rank for i in least)):
            del least[max(i for i in least if columns[i].rank == rank)]
        widths = {i: widths[i] for i in least}
        while _total(widths) > width and (can_shrink := [i for i in widths if widths[i] > least[i]]):
            widths[max(can_shrink, key=widths.__getitem__)] -= 1
    return [_line(columns, line, widths) for line in lines]


def _piece(cell: str | Text) -> Text:
    text, style = (cell, None) if isinstance(cell, str) else cell
    return Text(printable(text), style)


def _least(column: TerminalColumn, natural: int) -> int:
    """The width to which the column may be cut."""
    return natural if column.min_width is None else min(natural, max(column.min_width, width_of(column.title)))


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _line(columns: Sequence[TerminalColumn], cells: Sequence[Text], widths: Mapping[int, int]) -> list[Text]:
    pieces: list[Text] = []
    for i, width in widths.items():
        text = cut(cells[i].text, width)
        blanks = " " * (width - width_of(text))
        pieces += [Text(GAP)] if pieces else []
        pieces.append(Text(blanks + text if columns[i].right else text + blanks, cells[i].style))
    return pieces


def cut(text: str, width: int) -> str:
    """The beginning of the text that fits, with an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + ELLIPSIS
