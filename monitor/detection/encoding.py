"""Detection state as JSON: arrays exactly."""

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast, get_args, get_origin

import numpy as np

from lossguard.vocabulary.protocol import decode_number, encode_number
from monitor.detection.rows import Floats, Ints

Part = TypeVar("Part")


def pack(values: Floats | Sequence[float], dtype: str = "<f8") -> str:
    """float64[N] as base64 of its little-endian bytes; as "<f4" only what four bytes hold exactly."""
    return b2a_base64(np.asarray(values, dtype=dtype).tobytes(), newline=False).decode("ascii")


def unpack(text: str, dtype: str = "<f8") -> Floats:
    """The inverse of `pack`, as a writable array."""
    return np.frombuffer(a2b_base64(text), dtype=dtype).astype(np.float64)


def dump_fields(owner: object, numbers: Sequence[str], arrays: Sequence[str]) -> dict[str, Any]:
    """The named attributes as JSON. `arrays`: also those that are lists of floats."""
    return {name: getattr(owner, name) for name in numbers} | {name: pack(getattr(owner, name)) for name in arrays}


def load_fields(
    owner: object, state: Mapping[str, Any], numbers: Sequence[str], arrays: Sequence[str], lists: Sequence[str] = ()
) -> None:
    """The inverse of `dump_fields`; `lists`: the arrays that are lists. Raises KeyError for a field that is missing."""
    for name in numbers:
        setattr(owner, name, state[name])
    for name in arrays:
        values = unpack(state[name])
        setattr(owner, name, values.tolist() if name in lists else values)


def dump(record: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """A dataclass as JSON, field by field, and so the records in it, unless they have a `to_dict` of their own."""
    names = [field.name for field in fields(record) if field.name not in without]
    return {name: _dumped(getattr(record, name)) for name in names}


def _dumped(value: Any) -> Any:
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        return encode_number(value)
    if isinstance(value, list | tuple):
        return [_dumped(each) for each in value]
    if isinstance(value, np.ndarray):
        return pack(value) if value.dtype == np.float64 else value.tolist()
    return value.to_dict() if hasattr(value, "to_dict") else dump(value)


def load(kind: Callable[..., Part], state: Mapping[str, Any], **others: Any) -> Part:
    """The inverse of `dump`; `others`: fields that are not part of the state. It leaves out what is no field.

    A field that the state lacks has its default. Raises TypeError or ValueError for what is no such record.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{state!r:.80} is no mapping")
    known = {field.name: field.type for field in fields(cast(Any, kind)) if field.name in state}
    return kind(**{name: _loaded(of, state[name]) for name, of in known.items()} | others)


def _loaded(kind: Any, value: Any) -> Any:
    if value is None or kind in (int, bool, str):
        return value
    if kind in (Floats, Ints):
        return unpack(value) if kind == Floats else np.array(value, dtype=np.int64)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return [_loaded(inner[0], each) for each in value]
    if origin is tuple:
        return tuple(_loaded(of, each) for of, each in zip(inner, value, strict=True))
    if inner:  # X | None
        return _loaded(inner[0], value)
    if is_dataclass(kind):
        return kind.from_dict(value) if hasattr(kind, "from_dict") else load(cast(Any, kind), value)
    if kind is float and isinstance(value, str):
        return decode_number(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, StrEnum) else value


def restore(build: Callable[[Any], Part], state: Any) -> Part | None:
    """Return what `build` makes of a part of a state, and None where there is none.

    What `build` raises passes through: a state that is damaged in part is rebuilt as a whole.
    """
    return None if state is None else build(state)


def restore_row(build: Callable[[Any], Part], details: Any) -> Part | None:
    """Return what `build` makes of the details of a stored row, and None where this release cannot read them."""
    try:
        return restore(build, details)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
