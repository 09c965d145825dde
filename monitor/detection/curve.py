"""A recorded curve as rows, from the lines of a CSV file."""

import csv
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from lossguard.vocabulary.metrics import detector_inputs
from monitor.detection.rows import Rows

MAX_LISTED, MAX_LETTERS = 12, 40
"""Columns that an error lists, and letters of each that it quotes."""


class CurveError(ValueError):
    """A curve that cannot be read or backtested; the message is one sentence, with file and line."""


def parse_curve(name: str, lines: Iterable[str], also: Sequence[str] = (), *, max_rows: int | None = None) -> Rows:
    """Rows of the CSV file `name`, with its columns `also` besides DETECTOR_INPUTS and advisory signals.

    Raises CurveError, also for more rows.

    An empty cell is a metric that was not reported; nan and inf are kept. The lines are read one at a time, and only
    the numbers of these columns are kept.
    """
    try:
        reader = csv.reader(lines)
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(name, header)
        places = {column: header.index(column) for column in (*detector_inputs(header), *also) if column in header}
        steps, columns = array("q"), {column: (array("d"), bytearray()) for column in places}
        for row in filter(None, reader):
            line = reader.line_num
            if max_rows is not None and len(steps) == max_rows:
                raise CurveError(f"{name}, line {line}: a curve may have {max_rows:,} rows here; upload a part of it.")
            if len(row) != len(header):
                raise CurveError(
                    f"{name}, line {line}: the number of cells is {len(row)}, the number of columns {len(header)}."
                )
            _append_step(name, line, steps, row[header.index("step")])
            for column, (values, present) in columns.items():
                value = _number(name, line, column, row[places[column]])
                values.append(math.nan if value is None else value)
                present.append(value is not None)
    except UnicodeDecodeError:
        raise CurveError(f"{name}: it is not UTF-8 text; save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise CurveError(f"{name}: cannot be read: {error}.") from None
    if len(steps) < 2:
        raise CurveError(f"{name}, line {len(steps) + 1}: a curve needs at least two rows, this one has {len(steps)}.")
    return Rows(
        np.array(steps),
        {column: np.array(values) for column, (values, _) in columns.items()},
        {column: np.array(present, dtype=bool) for column, (_, present) in columns.items()},
    )


def _check_header(name: str, header: Sequence[str]) -> None:
    if not header:
        raise CurveError(f"{name}, line 1: the file is empty.")
    missing = [column for column in ("step", "loss") if column not in header]
    if missing:
        listed = ", ".join(map(_shortened, header[:MAX_LISTED]))
        more = f" and {len(header) - MAX_LISTED:,} more" if len(header) > MAX_LISTED else ""
        raise CurveError(f"{name}, line 1: no column {' and no column '.join(missing)} among {listed}{more}.")
    twice = sorted(column for column, count in Counter(header).items() if count > 1)
    if twice:
        raise CurveError(f"{name}, line 1: column {_shortened(twice[0])} appears twice.")


def _append_step(name: str, line: int, steps: "array[int]", cell: str) -> None:
    value = _number(name, line, "step", cell)
    if value is None or not math.isfinite(value) or value != int(value) or abs(value) >= 2**53:
        raise CurveError(f"{name}, line {line}: step is {value}, not a whole number.")
    step = int(value)
    if steps and step <= steps[-1]:
        word = "a duplicate of" if step == steps[-1] else "not above"
        raise CurveError(f"{name}, line {line}: step {step} is {word} the step before it, {steps[-1]}.")
    steps.append(step)


def _number(name: str, line: int, column: str, cell: str) -> float | None:
    try:
        return float(cell) if cell.strip() else None
    except ValueError:
        raise CurveError(f"{name}, line {line}: {column} is {_shortened(cell)!r}, not a number.") from None


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}..."
