"""Checks the types of settings: whole numbers are whole, switches are booleans, and every number is finite."""

import math
from dataclasses import fields
from typing import Any

MAX_SETTING = 2**53
"""The largest number that a setting may have: every JSON reader still reads it exactly."""


def check_types(values: Any) -> None:
    """Raises ValueError naming the first field of a dataclass whose value is not of the field's type."""
    for field in fields(values):
        value, kind = getattr(values, field.name), field.type
        if kind is bool and not isinstance(value, bool):
            raise ValueError(f"{field.name} must be true or false, not {value!r}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is int and not (number and isinstance(value, int)):
            raise ValueError(f"{field.name} must be a whole number, not {value!r}")
        if kind is float and not (number and (isinstance(value, int) or math.isfinite(value))):
            raise ValueError(f"{field.name} must be a finite number, not {value!r}")
        if number and abs(value) > MAX_SETTING:
            raise ValueError(f"{field.name} must be at most {MAX_SETTING}")
