"""Values of users as JSON that every store holds: strict, finite, and without characters that a database refuses."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from lossguard.protocol import encode_number
from lossguard.scalars import plain


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
