"""The orders of a list of runs, and the cursor that says where in one of them a page ended.

A cursor holds the values that the list is sorted by, of the last run that was shown: a page begins after them, whatever
has become of that run, and however many new ones have come meanwhile.
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.dialects.base import Dialect
from db.models import Run
from db.run_states import is_silent_in_sql
from db.runs import fields
from lossguard.vocabulary.run_search import RunOrder as RunOrder
from lossguard.vocabulary.states import RunState

Value = float | int | str


NO_CURSOR = "the cursor is none of this list: take it from the answer with the page before"


class BadCursor(ValueError):
    """The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key by which a list is sorted."""

    value: sa.ColumnElement[Any]
    descending: bool
    type: type[str] | type[int] | type[float]

    @property
    def ordered(self) -> sa.ColumnElement[Any]:
        return self.value.desc() if self.descending else self.value.asc()

    def follows(self, last: Value) -> sa.ColumnElement[bool]:
        return self.value < last if self.descending else self.value > last


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of a page."""

    order: RunOrder
    now: float
    """Time at which the first page was read (unix seconds): all pages call the same runs silent."""
    values: Sequence[Value]

    def __str__(self) -> str:
        return cursor_text([self.order, self.now, *self.values])


def keys(order: RunOrder, dialect: Dialect, now: float) -> list[Key]:
    """The keys of an order; the last one tells all runs apart."""
    started = Key(sa.type_coerce(Run.started_at, sa.Float(53)), True, float)
    reported = Key(sa.type_coerce(Run.last_report_at, sa.Float(53)), True, float)
    first = {
        RunOrder.NEWEST: [],
        RunOrder.REPORT: [reported],
        RunOrder.ATTENTION: [Key(_attention(now), False, int)],
        RunOrder.INCIDENTS: [Key(fields.open_incidents(), True, int)],
        RunOrder.NAME: [
            Key(dialect.lower(sa.type_coerce(Run.project, sa.String)), False, str),
            Key(dialect.lower(fields.title), False, str),
        ],
    }[order]
    return [*first, started, Key(sa.type_coerce(Run.pk, sa.Integer), True, int)]


def _attention(now: float) -> sa.ColumnElement[int]:
    is_running = Run.state == RunState.RUNNING
    rest = sa.case((is_silent_in_sql(now), 1), (is_running, 2), else_=3)
    return sa.case((fields.needs_a_person(), rest - 4), else_=rest)


def after(keys: Sequence[Key], values: Sequence[Value]) -> sa.ColumnElement[bool]:
    """The rows that come after one with these values."""
    (key, *others), (value, *more) = keys, values
    if not others:
        return key.follows(value)
    # The first part alone suffices for an index; the databases do not see it in the second.
    not_before = key.value <= value if key.descending else key.value >= value
    return sa.and_(not_before, sa.or_(key.follows(value), after(others, more)))


def parse(text: str, order: RunOrder, keys: Sequence[Key]) -> Cursor:
    """The cursor that `text` is, for a list in this order. Raises BadCursor."""
    match cursor_values(text):
        case [str(given), float(now) | int(now), *values] if given in tuple(RunOrder):
            cursor = Cursor(RunOrder(given), now, tuple(values))
        case _:
            raise BadCursor(NO_CURSOR)
    if cursor.order is not order:
        raise BadCursor(f"the cursor belongs to a list sorted by {cursor.order}, not by {order}: start without it")
    check(cursor.values, keys)
    if not math.isfinite(cursor.now):
        raise BadCursor(NO_CURSOR)
    return cursor


def cursor_text(values: Sequence[Value]) -> str:
    """Values as one word that can stand in a URL."""
    text = json.dumps(values, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor_values(text: str) -> Any:
    """Return the values in the word. Raises BadCursor."""
    try:
        return json.loads(base64.urlsafe_b64decode(text.encode("ascii") + b"=="))
    except (ValueError, RecursionError):
        raise BadCursor(NO_CURSOR) from None


def check(values: Any, keys: Sequence[Key]) -> None:
    """Raise BadCursor unless these are values of the keys."""
    if not isinstance(values, list | tuple) or len(keys) != len(values) or not all(map(_fits, keys, values)):
        raise BadCursor(NO_CURSOR)


def _fits(key: Key, value: Any) -> bool:
    if key.type is str:
        return isinstance(value, str) and "\x00" not in value and value.isprintable()
    is_number = isinstance(value, int if key.type is int else int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 2**53
