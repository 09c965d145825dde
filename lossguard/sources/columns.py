"""Which column of a table says the step, which the time, and which hold numbers."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lossguard.vocabulary.protocol import MAX_STEP, is_time

STEP_NAMES = (
    *("step", "_step", "global_step", "global_steps", "trainer/global_step", "train/global_step"),
    *("training_step", "train_step", "iteration", "iter", "iter_num", "iterations", "it"),
    *("steps", "num_steps", "update", "updates", "num_updates", "batch"),
)
TIME_NAMES = ("time", "timestamp", "_timestamp", "wall_time", "walltime", "datetime", "date", "created_at", "ts")

NOTHING = ("", "-", "none", "null", "na", "n/a")
"""Cells without a value, in small letters."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names that a user gives; None: they are found."""

    step: str | None = None
    time: str | None = None

    def step_in(self, names: Collection[str]) -> str | None:
        """The name of the column of steps; None if there is none."""
        return _column(self.step, names, STEP_NAMES)

    def time_in(self, names: Collection[str]) -> str | None:
        """The name of the column of times; None if there is none."""
        return _column(self.time, names, TIME_NAMES)


def _column(given: str | None, names: Collection[str], known: Iterable[str]) -> str | None:
    if given is not None:
        return given if given in names else None
    by_small = {name.strip().lower(): name for name in reversed(list(names))}
    return next((by_small[name] for name in known if name in by_small), None)


class Numbers:
    """Takes the numbers out of the cells of each row. A column may hold text, but not one that has held a number."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def taken(self, cells: Iterable[tuple[str, Any]]) -> tuple[dict[str, float], str]:
        """Return the numbers by column, and the first problem of a cell in a few words; empty if there is none."""
        numbers, problem = {}, ""
        for name, cell in cells:
            if (number := number_of(cell)) is not None:
                numbers[name] = number
            elif name in self._names and not problem and isinstance(cell, str) and cell.strip().lower() not in NOTHING:
                problem = _no_number(name, cell)
        self._names.update(numbers)
        return numbers, problem


def _no_number(name: str, cell: str) -> str:
    return f"{f'{name}={cell}'!r:.60} is no number"


def problem_of(values: Mapping[str, Any], step: str) -> str:
    """Return why these values are no row, in a few words; empty if they hold only a step and times."""
    if step_of(values[step]) is None:
        return f"{f'{step}={values[step]}'!r:.60} is no step"
    for name, value in values.items():
        if isinstance(value, str) and value.strip() and number_of(value) is None and time_of(value) is None:
            return _no_number(name, value)
    return ""


def step_of(value: Any) -> int | None:
    """A cell as a step; None if it is none."""
    number = number_of(value)
    if number is None or not math.isfinite(number) or number != int(number) or not 0 <= number < MAX_STEP:
        return None
    return int(number)


def number_of(value: Any) -> float | None:
    """A cell as a number; None for text, for nothing and for truth values."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def time_of(value: Any) -> float | None:
    """A cell as unix seconds: of a number (milliseconds too) or of an ISO date; None if it is none."""
    number = number_of(value)
    if number is None and isinstance(value, str):
        try:
            number = datetime.fromisoformat(value.strip()).timestamp()
        except (ValueError, OverflowError):
            return None
    if number is not None and number > 1e11:
        number /= 1000.0
    if number is None or number < 1e8:  # smaller ones count from the start of the run
        return None
    return number if is_time(number) else None
