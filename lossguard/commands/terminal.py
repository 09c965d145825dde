"""What a command prints: plain text that no run can turn into commands to the terminal, coloured where that is wanted.

Colours: on a terminal only, and not where NO_COLOR is set or TERM is `dumb`. Other characters than ASCII: where the
output can encode them.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TextIO

ASCII = {"…": "~", "▲": "^", "▼": "v", "✕": "x", "±": "+-"}
"""In place of characters that the output cannot encode."""
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
    """The same of several lines."""
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
    """Where a command prints."""

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
