"""A recorded curve as rows, from the lines of a CSV file."""

import csv
import math
from collections.abc import Iterable, Sequence

from lossguard.metrics import DETECTOR_INPUTS
from monitor.detection.rows import Rows

COLUMNS = DETECTOR_INPUTS
"""Besides `step`; only `loss` is required."""


class CurveError(ValueError):
    """A curve that cannot be read or backtested; the message is one sentence, with file and line."""


def parse_curve(name: str, lines: Iterable[str], also: Sequence[str] = ()) -> Rows:
    """Rows of the CSV file `name`, with its columns `also` besides COLUMNS. Raises CurveError.

    An empty cell is a metric that was not reported; nan and inf are kept.
    """
    columns = (*COLUMNS, *also)
    try:
        reader = csv.reader(lines)
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(name, header)
        cells = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CurveError(f"{name}: cannot be read: {error}.") from None
    table = [_numbers(name, line, header, row, ("step", *columns)) for line, row in cells]
    steps = [_step(name, line, values["step"]) for (line, _), values in zip(cells, table, strict=True)]
    for (line, _), before, step in zip(cells[1:], steps, steps[1:], strict=False):
        if step <= before:
            word = "a duplicate of" if step == before else "not above"
            raise CurveError(f"{name}, line {line}: step {step} is {word} the step before it, {before}.")
    if len(steps) < 2:
        raise CurveError(f"{name}, line {len(steps) + 1}: a curve needs at least two rows, this one has {len(steps)}.")
    return Rows.of(steps, **{column: [values[column] for values in table] for column in columns if column in header})


def _check_header(name: str, header: Sequence[str]) -> None:
    if not header:
        raise CurveError(f"{name}, line 1: the file is empty.")
    missing = [column for column in ("step", "loss") if column not in header]
    if missing:
        raise CurveError(f"{name}, line 1: no column {' and no column '.join(missing)} among {', '.join(header)}.")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise CurveError(f"{name}, line 1: column {twice[0]} appears twice.")


def _numbers(
    name: str, line: int, header: Sequence[str], row: Sequence[str], columns: Sequence[str]
) -> dict[str, float | None]:
    if len(row) != len(header):
        raise CurveError(
            f"{name}, line {line}: the number of cells is {len(row)}, the number of columns {len(header)}."
        )
    values: dict[str, float | None] = {}
    for column, cell in zip(header, row, strict=True):
        if column not in columns:
            continue
        try:
            values[column] = float(cell) if cell.strip() else None
        except ValueError:
            raise CurveError(f"{name}, line {line}: {column} is {cell!r}, not a number.") from None
    return values


def _step(name: str, line: int, value: float | None) -> int:
    if value is None or not math.isfinite(value) or value != int(value) or abs(value) >= 2**53:
        raise CurveError(f"{name}, line {line}: step is {value}, not a whole number.")
    return int(value)
