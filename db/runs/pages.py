"""Pages of the list of runs: filtered, searched and sorted by the database.

A page costs the same wherever it is in the list, and no run is read that is not shown. Only a search for the newest
value of a metric without a Prometheus gauge has to read the runs that match otherwise, `CHUNK` at a time.

A cursor holds the values that the list is sorted by, of the last run that was shown: a page begins after them, whatever
has become of that run, and however many new ones have come meanwhile.
"""

import base64
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, load_only

from db.dialects.base import Dialect, QueryTooSlow
from db.models import Run
from db.run_states import is_silent_in_sql, run_needs_a_person
from db.runs.conditions import NUMBERS, TITLE
from db.runs.filters import RunFilter as RunFilter
from db.runs.filters import selection
from db.runs.overview import summaries
from db.store.engine import dialect_of
from lossguard.vocabulary.protocol import is_text
from lossguard.vocabulary.run_search import METRIC, Condition, RunOrder
from lossguard.vocabulary.states import RunState

SEARCH_SECONDS = 5.0
"""Time that the database may take for one query of a list; a search that takes longer is refused."""
CHUNK = 500
"""Runs that are read at once where the database alone cannot tell which ones match."""


Value = float | int | str

MAX_NUMBER = 2**53
"""Above every number in a cursor; neither NaN nor infinity is below it."""
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


def sort_keys(order: RunOrder, dialect: Dialect, now: float) -> list[Key]:
    """The keys of an order; the last one tells all runs apart."""
    started = Key(sa.type_coerce(Run.started_at, sa.Float(53)), True, float)
    reported = Key(sa.type_coerce(Run.last_report_at, sa.Float(53)), True, float)
    first = {
        RunOrder.NEWEST: [],
        RunOrder.REPORT: [reported],
        RunOrder.ATTENTION: [Key(_attention(now), False, int)],
        RunOrder.INCIDENTS: [Key(NUMBERS["open_incidents"], True, int)],
        RunOrder.NAME: [
            Key(dialect.lower(sa.type_coerce(Run.project, sa.String)), False, str),
            Key(dialect.lower(TITLE), False, str),
        ],
    }[order]
    return [*first, started, Key(sa.type_coerce(Run.pk, sa.Integer), True, int)]


def _attention(now: float) -> sa.ColumnElement[int]:
    is_running = Run.state == RunState.RUNNING
    rest = sa.case((is_silent_in_sql(now), 1), (is_running, 2), else_=3)
    return sa.case((run_needs_a_person(), rest - 4), else_=rest)


def after(keys: Sequence[Key], values: Sequence[Value]) -> sa.ColumnElement[bool]:
    """The rows that come after one with these values."""
    (key, *others), (value, *more) = keys, values
    if not others:
        return key.follows(value)
    # The first part alone suffices for an index; the databases do not see it in the second.
    not_before = key.value <= value if key.descending else key.value >= value
    return sa.and_(not_before, sa.or_(key.follows(value), after(others, more)))


def parse_cursor(text: str, order: RunOrder, keys: Sequence[Key]) -> tuple[float, Sequence[Value]]:
    """The moment of the first page (unix seconds), and the values of its last run, in the cursor of a list in this
    order. Raises BadCursor.

    All pages call those runs silent that were so at that moment.
    """
    match cursor_values(text):
        case [str(given), float(now) | int(now), *values] if given in tuple(RunOrder) and abs(now) < MAX_NUMBER:
            if given != order:
                raise BadCursor(f"the cursor belongs to a list sorted by {given}, not by {order}: start without it")
            check_cursor(values, keys)
            return now, values
        case _:
            raise BadCursor(NO_CURSOR)


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


def check_cursor(values: Any, keys: Sequence[Key]) -> None:
    """Raise BadCursor unless these are values of the keys."""
    if not isinstance(values, list | tuple) or len(keys) != len(values) or not all(map(_fits, keys, values)):
        raise BadCursor(NO_CURSOR)


def _fits(key: Key, value: Any) -> bool:
    if key.type is str:
        return is_text(value)
    is_number = isinstance(value, int if key.type is int else int | float) and not isinstance(value, bool)
    return is_number and abs(value) < MAX_NUMBER


class SearchTooSlow(Exception):
    """The message is one sentence: what was given up, and what to do."""


@dataclass(frozen=True, slots=True)
class RunPage:
    runs: Sequence[Run]
    next: str | None
    """Cursor of the next page; None: there is none."""


def page(
    session: Session,
    *,
    where: RunFilter,
    order: RunOrder = RunOrder.NEWEST,
    limit: int | None,
    cursor: str | None = None,
    now: float,
    columns: Collection[str] = (),
) -> RunPage:
    """The first `limit` runs, or those after `cursor`; None: all.

    `now`: unix seconds, for who is silent. `columns`: those of `Run` that are read at once; without them all.
    Raises BadCursor, and SearchTooSlow.
    """
    values: Sequence[Any] | None = None
    if cursor is not None:
        now, values = parse_cursor(cursor, order, sort_keys(order, dialect_of(session.get_bind()), now))
    keys = sort_keys(order, dialect_of(session.get_bind()), now)
    found: list[Run] = []
    with _limited(session):
        for run, *run_values in _matching(session, where, keys, values, limit, now, columns):
            if limit is not None and len(found) == limit:
                return RunPage(found, cursor_text([order, now, *(values or ())]))
            found.append(run)
            values = run_values
    return RunPage(found, None)


def count(session: Session, *, where: RunFilter, now: float) -> int:
    """Count the runs that match. Raises SearchTooSlow."""
    chosen = selection(session, where, now=now)
    if chosen.of_steps:
        return len(page(session, where=where, limit=None, now=now).runs)
    found = sa.select(sa.func.count()).select_from(Run).where(*chosen.tests)
    with _limited(session):
        return session.scalar(found) or 0


@contextmanager
def _limited(session: Session) -> Iterator[None]:
    try:
        with dialect_of(session.get_bind()).time_limit(session.connection(), SEARCH_SECONDS):
            yield
    except QueryTooSlow as error:
        raise SearchTooSlow(
            f"the search took the database longer than {SEARCH_SECONDS:g} s; use fewer terms, or narrow it with "
            "project:"
        ) from error


def _matching(
    session: Session,
    where: RunFilter,
    keys: Sequence[Key],
    values: Sequence[Any] | None,
    limit: int | None,
    now: float,
    columns: Collection[str],
) -> Iterator[Sequence[Any]]:
    """The runs after these values in their order, each with its own values."""
    chosen = selection(session, where, now=now)
    sort_values = (key.value.label(f"key_{number}") for number, key in enumerate(keys))
    found = sa.select(Run, *sort_values, *chosen.by_settings).where(*chosen.tests)
    found = found.order_by(*(key.ordered for key in keys))
    if columns and not chosen.of_steps:
        found = found.options(load_only(*(getattr(Run, name) for name in sorted({"pk", "id", *columns}))))
    size = CHUNK if chosen.of_steps else None if limit is None else limit + 1
    while True:
        part = found if values is None else found.where(after(keys, values))
        rows = session.execute(part if size is None else part.limit(size)).all()
        yield from _with_metrics(session, rows, chosen.of_steps) if chosen.of_steps else rows
        if not chosen.of_steps or len(rows) < CHUNK:
            return
        values = rows[-1][1 : len(keys) + 1]


def _with_metrics(
    session: Session, rows: Sequence[Sequence[Any]], terms: Sequence[Condition]
) -> Iterator[Sequence[Any]]:
    """The rows, without their last values (`Selection.by_settings`), of runs that meet the conditions on steps."""
    names = {term.name.removeprefix(METRIC) for term in terms}
    found = summaries(session, runs=[row[0] for row in rows], metrics=sorted(names))
    for row in rows:
        newest = {name: metric.last for name, metric in found[row[0].pk].metrics.items()}
        if all(
            (term.holds(newest.get(term.name.removeprefix(METRIC))) if by_setting is None else by_setting)
            is not term.excluded
            for term, by_setting in zip(terms, row[-len(terms) :], strict=True)
        ):
            yield row[: -len(terms)]
