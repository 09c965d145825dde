"""From the values of a TOML file or of a recorded configuration to dataclasses, and from dataclasses to JSON.

A field that was renamed names the old one in its metadata, `formerly`, and is read under both names.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lossguard import encode_number
from trainer.errors import UsageError

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], prefix: str) -> T:
    """The dataclass `kind` with these fields; `prefix` is its name before them, such as "model.". Raises UsageError."""
    hints = get_type_hints(kind)
    formerly = {each.metadata["formerly"]: each.name for each in fields(kind) if "formerly" in each.metadata}  # type: ignore[arg-type]
    values = {formerly.get(name, name): value for name, value in values.items()}
    allowed = [item.name for item in fields(kind)]  # type: ignore[arg-type]  # kind is always a dataclass
    for name in values:
        if name not in hints:
            where = f"section {prefix[:-1]}" if prefix else "a recipe"
            raise UsageError(f"{prefix}{name} is not a field of {where}; its fields are: {', '.join(allowed)}.")
    return kind(**{name: _convert(hints[name], value, prefix + name) for name, value in values.items()})


def _convert(hint: Any, value: object, name: str) -> object:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} = {value!r} cannot be used: it is a section, not a value.")
        return build(hint, value, f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{name} = {value!r} cannot be used: it must be a list of texts.")
        return tuple(value)
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        kind = next(kind.__name__ for kind in kinds if kind is not type(None))
        raise UsageError(f"{name} = {value!r} cannot be used: it must be {DESCRIPTIONS[kind]}.")
    return value


DESCRIPTIONS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def encoded(value: Any) -> Any:
    """Return a dataclass, or a list of them, as values of JSON; non-finite numbers are strings, as in the protocol."""
    if is_dataclass(value):
        value = asdict(value)  # type: ignore[arg-type]  # an instance
    if isinstance(value, dict):
        return {name: encoded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [encoded(each) for each in value]
    return encode_number(value) if isinstance(value, float) else value
