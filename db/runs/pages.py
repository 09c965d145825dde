"""Pages of the list of runs: filtered, searched and sorted by the database.

A page costs the same wherever it is in the list, and no run is read that is not shown. Only a search for the newest
value of a metric without a Prometheus gauge has to read the runs that match otherwise, `CHUNK` at a time.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, load_only

from db.dialects import dialect_of
from db.dialects.base import QueryTooSlow
from db.models import Run
from db.runs import orders
from db.runs.filters import RunFilter as RunFilter
from db.runs.filters import selection
from db.runs.orders import Cursor, RunOrder
from db.runs.overview import summaries
from lossguard.vocabulary.run_search import METRIC, Condition

SEARCH_SECONDS = 5.0
"""Time that the database may take for one query of a list; a search that takes longer is refused."""
CHUNK = 500
"""Runs that are read at once where the database alone cannot tell which ones match."""


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
    with _limited(session):
        return _page(session, where, order, limit, cursor, now, columns)


def _page(
    session: Session,
    where: RunFilter,
    order: RunOrder,
    limit: int | None,
    cursor: str | None,
    now: float,
    columns: Collection[str],
) -> RunPage:
    keys = orders.keys(order, dialect_of(session.get_bind()), now)
    values: Sequence[Any] | None = None
    if cursor is not None:
        known = orders.parse(cursor, order, keys)
        now, values = known.now, known.values
        keys = orders.keys(order, dialect_of(session.get_bind()), now)
    found: list[Run] = []
    for run, *run_values in _matching(session, where, keys, values, limit, now, columns):
        if limit is not None and len(found) == limit:
            return RunPage(found, str(Cursor(order, now, values or ())))
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
    keys: Sequence[orders.Key],
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
        part = found if values is None else found.where(orders.after(keys, values))
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
