"""Detection state as JSON: arrays exactly."""

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

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


def dump_columns(record: Any) -> dict[str, Any]:
    """A dataclass with columns as JSON: arrays of floats are packed, those of whole numbers are lists."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    for field in fields(record):
        if field.type == Floats:
            values[field.name] = pack(values[field.name])
        elif field.type == Ints:
            values[field.name] = values[field.name].tolist()
    return values


def load_columns(kind: Callable[..., Part], state: Mapping[str, Any]) -> Part:
    """The inverse of `dump_columns`. Raises KeyError, TypeError or ValueError for what is no such record."""
    arrays: Any = {Floats: unpack, Ints: partial(np.array, dtype=np.int64)}
    values = {field.name: arrays.get(field.type, _as_it_is)(state[field.name]) for field in fields(cast(Any, kind))}
    return kind(**values)


def _as_it_is(value: Any) -> Any:
    return value


def known_fields(kind: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `state` that are fields of the dataclass `kind`; a word of a vocabulary as a member of it."""
    known = {field.name: field.type for field in fields(kind) if field.name in state}
    return {
        name: of(state[name]) if isinstance(of, type) and issubclass(of, StrEnum) else state[name]
        for name, of in known.items()
    }


def from_fields(kind: Callable[..., Part], state: Mapping[str, Any]) -> Part:
    """The inverse of `asdict`; fields that this release does not know are left out."""
    return kind(**known_fields(cast(type, kind), state))


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
