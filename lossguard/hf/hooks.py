"""Attributes of other objects that are replaced for a time, and put back as they were."""

from collections.abc import Callable
from functools import partial
from typing import Any

ABSENT = object()


class Hooks:
    """Replaced attributes. `remove` undoes all of them, the last one first."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Have `owner.name(...)` call `wrapper(original, ...)`."""
        self.set(owner, name, partial(wrapper, getattr(owner, name)))

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set `owner.name`, which the class of `owner` or `owner` itself must have."""
        self._replaced.append((owner, name, vars(owner).get(name, ABSENT)))
        setattr(owner, name, value)

    def remove(self) -> None:
        """Put all back."""
        while self._replaced:
            owner, name, earlier = self._replaced.pop()
            if earlier is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, earlier)
