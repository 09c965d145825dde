"""Values of users as plain numbers and as strict JSON. Pure.

NumPy and torch are not imported: values are distinguished by their attributes.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

from lossguard.vocabulary.protocol import encode_number

MAX_EXACT_INT = 2**53
"""Larger integers may change when they are converted to a float."""


def plain(value: Any) -> float | int:
    """`value`, which is in host memory, as a Python number. Raises TypeError when it is not a scalar."""
    if isinstance(value, int):  # bool too
        if -MAX_EXACT_INT <= value <= MAX_EXACT_INT:
            return int(value)
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{value!r:.40} is not a number")
    try:
        return float(value.item() if hasattr(value, "item") else value)  # float() of a tensor with gradient warns
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"a {type(value).__name__} is not a scalar") from None


def on_device(value: Any) -> bool:
    """True if reading `value` would make the caller wait for an accelerator."""
    return getattr(getattr(value, "device", None), "type", "cpu") != "cpu"


def plain_json(value: Any) -> Any:
    """A strictly JSON-able copy of `value`: non-finite numbers as in the protocol, unknown types as str()."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {storable(str(key)): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(each) for each in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, numbers.Real):  # NumPy's too
        return encode_number(plain(value))
    return storable(str(value))


def storable(text: str) -> str:
    """`text` without the halves of characters that Python makes of bytes that are no UTF-8, which JSON cannot carry,
    and without NUL, which no store accepts: its symbol replaces it."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\u2400")
