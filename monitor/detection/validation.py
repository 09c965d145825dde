"""The types of what a user sets: whole numbers are whole, switches are switches, and every number is finite."""

import math
from dataclasses import fields
from typing import Any

MOST = 2**53
"""The largest number that a setting may have: what every reader of JSON still reads exactly."""


def check_types(values: Any) -> None:
    """Raises ValueError naming the first field of a dataclass whose value is not of the field's type."""
    for field in fields(values):
        value, wanted = getattr(values, field.name), field.type
        if wanted is bool and not isinstance(value, bool):
            raise ValueError(f"{field.name} must be true or false, not {value!r}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if wanted is int and not (number and isinstance(value, int)):
            raise ValueError(f"{field.name} must be a whole number, not {value!r}")
        if wanted is float and not (number and (isinstance(value, int) or math.isfinite(value))):
            raise ValueError(f"{field.name} must be a finite number, not {value!r}")
        if number and abs(value) > MOST:
            raise ValueError(f"{field.name} must be at most {MOST}")
