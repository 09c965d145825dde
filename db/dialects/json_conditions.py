"""Conditions on the values in a JSON column, as each database asks for them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from lossguard.vocabulary.run_search import Operator

Column = sa.ColumnElement[Any] | InstrumentedAttribute[Any]
Test = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueTest:
    """What a value must be: any one of these suffices."""

    order: tuple[Operator, float] | None = None
    """A number on this side of the limit."""
    number: float | None = None
    """This number."""
    text: str | None = None
    """A text with this in it (in small letters; the case of the value does not matter)."""
    is_whole: bool = False
    """The text is all of it."""
    exactly: frozenset[str] = frozenset()
    """One of these texts, in this case."""
    constants: frozenset[bool | None] = frozenset()
    """true, false or null."""


class JsonConditions(ABC):
    """A condition is never NULL: it may be negated."""

    @abstractmethod
    def member(self, column: Column, key: str, test: ValueTest) -> Test:
        """Whether the member `key` of an object passes, or an element of the list that it is."""

    @abstractmethod
    def element(self, column: Column, test: ValueTest, *, of: str | None = None) -> Test:
        """Whether an element of a list passes: of the column, or of its member `of`."""

    @abstractmethod
    def setting(self, column: Column, name: str, test: ValueTest | None = None) -> Test:
        """Whether a setting passes, or without a test: whether there is one.

        The setting is the one whose dotted path `name` is, else each whose path ends with it, as in
        `lossguard.vocabulary.run_search.settings_named`; sections in lists count too.
        """

    @abstractmethod
    def text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        """The member `key` of an object, if it is a text; NULL where there is none."""

    @abstractmethod
    def member_text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        """The member `key` of an object as JSON, if it is an object or a list; NULL where there is none."""


def key_paths(name: str) -> list[tuple[str, ...]]:
    """The keys on the way to a dotted path: any of its dots may belong to a key, as in {"optimizer.lr": 1e-3}."""
    parts = name.split(".")[-MAX_PARTS:] if name.count(".") >= MAX_PARTS else name.split(".")
    cuts = range(1, len(parts))
    chosen = (at for count in range(len(parts), 0, -1) for at in combinations(cuts, count - 1))
    return [_joined(parts, at) for at in chosen]


MAX_PARTS = 5
"""Of a longer path, the last ones are compared."""


def _joined(parts: Sequence[str], cuts: Sequence[int]) -> tuple[str, ...]:
    bounds = [0, *cuts, len(parts)]
    return tuple(".".join(parts[low:high]) for low, high in pairwise(bounds))
