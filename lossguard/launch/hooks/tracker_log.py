"""From a tracker's call to lines of the journal: numbers, steps, and each scalar once."""

import functools
from collections.abc import Callable, Mapping
from math import isfinite
from time import time
from typing import Any

from .journal import Journal, encode, warn_once

_owners: dict[str, str] = {}
"""Name of a scalar -> the tracker that reported it first in this process, which alone records it from then on."""


class TrackerLog:
    """The entries of one tracker in the journal."""

    def __init__(self, tracker: str, journal: Journal, *, source: str = "") -> None:
        """`source`: the folder of a tracker of which a process may use several at once."""
        self._tracker = tracker
        self._source = source or tracker
        self._journal = journal
        self._num_calls: dict[str, int] = {}  # of scalars without a step
        self._templates: dict[tuple[str, ...], str] = {}  # of lines with the names that are logged together

    def scalars(self, step: int, values: Mapping[str, float], *, complete: bool = False) -> None:
        """Scalars of a step; `complete`: nothing more of this step comes."""
        names = tuple(values)
        template = self._templates.get(names)
        numbers = values.values()
        if template is not None and all(map(isfinite, numbers)):  # as encode does it, in half the time
            end = ',"complete":true}' if complete else "}"
            self._journal.write_text(template % (step, time(), *numbers) + end)
            return
        own = self._own(values)
        if tuple(own) == names:
            self._templates[names] = self._template(names)
        if own:
            entry = {"step": step, "time": time(), "tracker": self._tracker, "values": own}
            self._journal.write({**entry, "complete": True} if complete else entry)

    def count(self, name: str) -> int:
        """Return the number of earlier calls for a scalar that comes without a step."""
        count = self._num_calls[name] = self._num_calls.get(name, -1) + 1
        return count

    def describe(self, **facts: Any) -> None:
        """Names and configuration of the run in the tracker; what is None is left out."""
        known = {name: value for name, value in facts.items() if value is not None}
        if known:
            self._journal.write({"tracker": self._tracker, **known})

    def _template(self, names: tuple[str, ...]) -> str:
        """A line with places for step, time and values, without its end."""
        fields = ",".join(f"{encode(name)}:".replace("%", "%%") + "%r" for name in names)
        return f'{{"step":%d,"time":%r,"tracker":"{self._tracker}","values":{{{fields}}}'

    def _own(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values that no other tracker reports. Of two folders with the same tag (train/, val/), the later one has
        its folder in the name."""
        kind, folder = self._source.partition(":")[0], self._source.rstrip("/").rpartition("/")[2]
        own: dict[str, float] = {}
        for name, value in values.items():
            owner = _owners.setdefault(name, self._source)
            if owner != self._source and self._source != self._tracker and owner.partition(":")[0] == kind:
                name = f"{folder}/{name}"
                owner = _owners.setdefault(name, self._source)
            if owner == self._source:
                own[name] = value
        return own


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


_FLOAT = frozenset((float,))


def numbers(data: Mapping[str, Any], prefix: str = "") -> dict[str, float | int]:
    """The scalars in `data`, with the names of nested mappings joined by dots."""
    if not prefix and _FLOAT.issuperset(map(type, data.values())):
        return data  # type: ignore[return-value]
    found: dict[str, float | int] = {}
    for name, value in data.items():
        scalar = number(value)
        if scalar is not None:
            found[f"{prefix}{name}"] = scalar
        elif isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}.")
    return found


def whole(value: Any) -> int | None:
    """`value` as a step; None for what is no whole number of at least 0."""
    if type(value) is int and 0 <= value < 2**53:
        return value
    scalar = number(value)
    if scalar is None or scalar != scalar or not 0 <= scalar < 2**53 or int(scalar) != scalar:
        return None
    return int(scalar)


def recording(original: Callable[..., Any], record: Callable[..., None]) -> Callable[..., Any]:
    """`original`, called after `record` has seen the arguments. Whatever `record` does, it behaves as before."""

    @functools.wraps(original)
    def hooked(*arguments: Any, **named: Any) -> Any:
        _call(original, record, *arguments, **named)
        return original(*arguments, **named)

    return hooked


def observed(original: Callable[..., Any], see: Callable[..., None]) -> Callable[..., Any]:
    """`original`; `see` gets what it has returned, and the arguments. Whatever `see` does, it behaves as before."""

    @functools.wraps(original)
    def hooked(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        _call(original, see, result, *arguments, **named)
        return result

    return hooked


def _call(original: Callable[..., Any], ours: Callable[..., None], /, *arguments: Any, **named: Any) -> None:
    try:
        ours(*arguments, **named)
    except Exception as problem:
        warn_once(f"a call of {original.__qualname__} was not recorded ({type(problem).__name__}: {problem})")


def wrap(owner: Any, name: str, record: Callable[..., None]) -> None:
    """Replace the function `name` of a class or module. Raises AttributeError where there is none."""
    original = getattr(owner, name, None)
    if not callable(original):
        raise AttributeError(f"it has no {getattr(owner, '__name__', owner)}.{name}")
    setattr(owner, name, recording(original, record))
