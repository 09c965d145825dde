"""From a tracker's call to lines of the journal: numbers, steps, and each scalar once."""

import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from .journal import Journal, encode
from .warnings import warn_once

_owners: dict[str, str] = {}
"""Name of a scalar -> the tracker that reported it first in this process, which alone records it from then on."""


class TrackerLog:
    """What one tracker writes to the journal."""

    def __init__(self, tracker: str, journal: Journal, *, source: str = "") -> None:
        """`source`: the folder of a tracker of which a process may use several at once."""
        self._tracker = tracker
        self._source = source or tracker
        self._journal = journal
        self._begins: dict[tuple[str, ...], list[str]] = {}  # of names that are logged together, if all of them are own

    def scalars(self, step: int, values: Mapping[str, float], *, complete: bool = False) -> None:
        """Scalars of a step; `complete`: nothing more of this step comes."""
        names = tuple(values)
        begins = self._begins.get(names)
        if begins is None:
            own = self._own(values)
            if len(own) == len(values) and all(map(own.__contains__, names)):
                self._begins[names] = [f"{json.dumps(name)}:" for name in names]
            values = own
        if not values:
            return
        numbers = values.values()
        end = ',"complete":true}' if complete else "}"
        if begins is not None and all(map(math.isfinite, numbers)):  # what json.dumps does, in half the time
            fields = ",".join([f"{begin}{value!r}" for begin, value in zip(begins, numbers, strict=True)])
        else:
            fields = encode(values)[1:-1]
        self._journal.write_text(
            f'{{"step":{step},"time":{time.time()!r},"tracker":"{self._tracker}","values":{{{fields}}}{end}'
        )

    def describe(self, **facts: Any) -> None:
        """Names and configuration of the run in the tracker; what is None is left out."""
        known = {name: value for name, value in facts.items() if value is not None}
        if known:
            self._journal.write({"tracker": self._tracker, **known})

    def _own(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values that no other tracker reports."""
        own = {name: value for name, value in values.items() if _owners.setdefault(name, self._source) == self._source}
        return own | self._renamed({name: value for name, value in values.items() if name not in own})

    def _renamed(self, values: dict[str, float]) -> dict[str, float]:
        """Of two folders with the same tag (train/, val/) the later one's folder becomes a part of the name."""
        if self._source == self._tracker:
            return {}
        folder = self._source.rstrip("/").rpartition("/")[2]
        names = {f"{folder}/{name}": value for name, value in values.items() if self._is_sibling(_owners[name])}
        return {name: value for name, value in names.items() if _owners.setdefault(name, self._source) == self._source}

    def _is_sibling(self, owner: str) -> bool:
        return owner.partition(":")[0] == self._source.partition(":")[0]


def number(value: Any) -> float | int | None:
    """`value` as a plain number; None for what is no scalar (an image, a histogram, a text)."""
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str | bytes) or not hasattr(value, "item") or hasattr(value, "full_tensor"):
        return None
    try:
        return float(value.item())
    except (TypeError, ValueError, RuntimeError):  # more than one element, or a complex number
        return None


def numbers(data: Mapping[str, Any], prefix: str = "") -> dict[str, float | int]:
    """The scalars in `data`, with the names of nested mappings joined by dots."""
    found: dict[str, float | int] = {}
    for name, value in data.items():
        if type(value) is float and not prefix:
            found[name] = value
            continue
        scalar = number(value)
        if scalar is not None:
            found[f"{prefix}{name}"] = scalar
        elif isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}.")
    return found


def whole(value: Any) -> int | None:
    """`value` as a step; None for what is no whole number of at least 0."""
    scalar = number(value)
    if scalar is None or scalar != scalar or not 0 <= scalar < 2**53 or int(scalar) != scalar:
        return None
    return int(scalar)


def recording(original: Callable[..., Any], record: Callable[..., None]) -> Callable[..., Any]:
    """`original`, called after `record` has seen the arguments. Whatever `record` does, it behaves as before."""

    @functools.wraps(original)
    def hooked(*arguments: Any, **named: Any) -> Any:
        try:
            record(*arguments, **named)
        except Exception as problem:
            warn_once(f"a call of {original.__qualname__} was not recorded ({type(problem).__name__}: {problem})")
        return original(*arguments, **named)

    return hooked


def wrap(owner: Any, name: str, record: Callable[..., None]) -> None:
    """Replace the function `name` of a class or module. Raises AttributeError where there is none."""
    original = getattr(owner, name, None)
    if not callable(original):
        raise AttributeError(f"it has no {getattr(owner, '__name__', owner)}.{name}")
    setattr(owner, name, recording(original, record))
