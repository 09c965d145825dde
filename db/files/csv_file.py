"""CSV files of steps: their header, their rows as record batches, and the place of what cannot be read.

Arrow reads the file in blocks; what it refuses is looked for a second time, line by line, because only then is the line
known. A line is never in memory beyond MAX_LINE characters.
"""

import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.csv

from lossguard.client.tables import original_name

MAX_LINE = 2**20
"""Characters of a line: a header of 1,000 metrics with the longest names has 131,000."""

_PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class BadLine(ValueError):
    """A line that cannot be read. The message says which one, and why."""


def read_header(path: Path) -> list[str]:
    """The names of the columns. Raises BadLine, and UnicodeDecodeError for a file that is not UTF-8."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        _, cells = next(_rows(file), (1, []))
        return [original_name(name) for name in cells]


def read_batches(
    path: Path, types: Mapping[str, pa.DataType], without: Sequence[str]
) -> pyarrow.csv.CSVStreamingReader:
    """The rows below the header, a block at a time. `types`: of the columns, all of them, in their order.

    Raises pa.ArrowInvalid for a row that cannot be read, here or later; `first_bad_line` says which.
    """
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=list(types), skip_rows=1),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(types), include_columns=[name for name in types if name not in without], null_values=[""]
        ),
    )


def first_bad_line(path: Path, types: Mapping[str, pa.DataType]) -> str | None:
    """Return the number and the mistake of the first line that Arrow cannot read; None if all can be read."""
    try:
        for line, cells in _rows_below(path):
            if len(cells) != len(types):
                return f"line {line} has {len(cells)} cells, but the header names {len(types)} columns"
            for cell, (name, kind) in zip(cells, types.items(), strict=True):
                if not _fits(cell, kind):
                    what = "a whole number" if pa.types.is_integer(kind) else "a number"
                    return f"line {line}: {name}: {cell!r:.80} is not {what}"
    except BadLine as error:
        return str(error)
    return None


def line_of(path: Path, row: int) -> int:
    """The number of the line that holds a row; both count from 1, and the header is line 1."""
    line, _ = next(itertools.islice(_rows_below(path), row - 1, None))
    return line


def _rows_below(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, with bytes that are no UTF-8 replaced."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        yield from itertools.islice(_rows(file), 1, None)


def _rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The number of its first line, and the cells, of the header and of every row that is not empty."""
    reader = csv.reader(_lines(file))
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadLine(f"line {line}: {error}") from None
        if cells is None:
            return
        if cells or line == 1:
            yield line, cells


def _lines(file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise BadLine(f"line {number} is longer than {MAX_LINE:,} characters")
        yield line


def _fits(cell: str, kind: pa.DataType) -> bool:
    """True if Arrow reads the cell as a number of this type; an empty cell is no number at all."""
    if not cell or pa.types.is_string(kind) or (pa.types.is_floating(kind) and _PLAIN_NUMBER.fullmatch(cell)):
        return True
    try:
        pa.scalar(cell.strip(" \t")).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
