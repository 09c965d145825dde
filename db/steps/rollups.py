"""Roll-ups: what charts of long runs read in place of the steps.

Level 1 holds buckets of FINEST steps, every further level FACTOR of the one below. A bucket is written once, when the
segment has passed its end (it is *sealed*), in the transaction of the report that passed it; what is not sealed yet is
read from the level below, down to the steps. So a step costs the same whatever the length of the run, and a report of
one step writes roll-ups only every FINEST steps. Steps that arrive behind their successors mend the sealed buckets.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import bulk
from db.models import Metric, Rollup, Segment, Step
from db.steps.buckets import Buckets, Ints, coarsen, joined, nothing, points
from lossguard.metrics import COLUMNS
from lossguard.protocol import NON_FINITE

FINEST = 16
FACTOR = 4

KEPT = [field.name for field in fields(Buckets) if field.name != "key"]
NUMBERS = ("min", "max", "mean", "first", "last")
POINTS = (
    f"SELECT step, CAST(extra AS TEXT), CAST(non_finite AS TEXT), {', '.join(bulk.quoted(COLUMNS))} FROM steps"
    " WHERE run_pk = ? AND segment = ? AND step >= ? AND step < ? ORDER BY step"
)
"""The steps of a segment as `of_columns` takes them, but for the JSON."""


def width(level: int) -> int:
    """Steps in a bucket; level 0 is the steps themselves."""
    return FINEST * FACTOR ** (level - 1) if level else 1


def level_for(bucket: int) -> int:
    """The coarsest level whose buckets fill one of `bucket` steps, a power of two, exactly."""
    level = 0
    while width(level + 1) <= bucket:
        level += 1
    return level


def pieces(level: int, low: int, high: int, sealed: int) -> Iterator[tuple[int, int, int]]:
    """Cut the steps [low, high) into (level, from, to) as coarse as can be; steps below `sealed` may be in buckets."""
    if low >= high:
        return
    size = width(level)
    begin, end = -(-low // size) * size, min(high, sealed) // size * size
    if level == 0:
        yield 0, low, high
    elif begin >= end:
        yield from pieces(level - 1, low, high, sealed)
    else:
        yield from pieces(level - 1, low, begin, sealed)
        yield level, begin, end
        yield from pieces(level - 1, end, high, sealed)


class TooManyMetrics(ValueError):
    """A run has more metrics than it may."""


def metric_numbers(
    session: Session,
    *,
    run_pk: int,
    names: Iterable[str] = (),
    limit: int | None = None,
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The numbers of the run's metrics by name; `names` that are new get one. Raises TooManyMetrics beyond `limit`.

    `known`: all of them as they are stored, where the caller has them.
    """
    numbers = dict(known or bulk.read(session, "SELECT name, number FROM metrics WHERE run_pk = ?", (run_pk,)))
    new = [name for name in names if name not in numbers]
    fresh = {name: number for number, name in enumerate(new, start=len(numbers))}
    if fresh and limit is not None and len(numbers) + len(fresh) > limit:
        raise TooManyMetrics(f"a run may have {limit} metrics; {new[-1]!r} is one too many")
    if fresh:
        rows = [{"run_pk": run_pk, "number": number, "name": name} for name, number in fresh.items()]
        session.execute(sa.insert(Metric), rows)
    return numbers | fresh


@dataclass(frozen=True, slots=True)
class Place:
    """A segment of a run, and the numbers of the run's metrics by name."""

    run_pk: int
    segment: int
    numbers: Mapping[str, int]


def touches(before: int | None, first: int, last: int) -> bool:
    """Whether new steps from `first` to `last` of a segment that ended at `before` end a bucket, or mend one."""
    known = 0 if before is None else before + 1
    return first < known or (last + 1) // FINEST > known // FINEST


def grow(session: Session, place: Place, given: Buckets, *, before: int | None, after: int) -> None:
    """Take up `given`, which was just stored: the segment's last step was `before` and is `after` now."""
    if before is None:
        _seal(session, place, given, 0, after)
        return
    late = given.start <= before
    if late.any():
        _mend(session, place, np.unique(given.start[late]), before)
        given = given.where(~late)
    if after > before:
        _seal(session, place, given, before + 1, after)


def _seal(session: Session, place: Place, below: Buckets, known: int, after: int) -> None:
    """Write the buckets that end within (known, after + 1]; `below` holds all from `known` on."""
    level, reached = 1, known
    while (after + 1) // (size := width(level)) > known // size:
        begin, end = known // size * size, (after + 1) // size * size
        older = children(session, place, level=level, low=begin, high=reached)
        ready = joined([older, below])
        below = coarsen(ready.where(ready.start < end), size)
        _write(session, place, level, below)
        level, reached = level + 1, begin


def _mend(session: Session, place: Place, steps: Ints, before: int) -> None:
    """Work out anew every sealed bucket that holds one of these steps."""
    level = 1
    while True:
        size = width(level)
        starts = np.unique(steps // size * size)
        starts = starts[starts + size <= before + 1]
        if len(starts) == 0:
            return
        for begin, end in _stretches(starts, size):
            mended = coarsen(children(session, place, level=level, low=begin, high=end), size)
            session.execute(
                sa.delete(Rollup).where(
                    *(Rollup.run_pk == place.run_pk, Rollup.segment == place.segment, Rollup.level == level),
                    *(Rollup.metric.in_(np.unique(mended.key).tolist()), Rollup.start >= begin, Rollup.start < end),
                )
            )
            _write(session, place, level, mended)
        level += 1


def _stretches(starts: Ints, size: int) -> Iterator[tuple[int, int]]:
    """[begin, end) of the runs of adjacent buckets."""
    cuts = np.flatnonzero(np.diff(starts) != size) + 1
    for part in np.split(starts, cuts):
        yield int(part[0]), int(part[-1]) + size


def children(session: Session, place: Place, *, level: int, low: int, high: int) -> Buckets:
    """What the buckets [low, high) of `level` are made of: the level below, or the steps; every metric of the run."""
    if low >= high or not place.numbers:
        return nothing()
    if level == 1:
        return stored_points(session, place, low=low, high=high)
    rows = bulk.read(
        session,
        f"SELECT metric, {', '.join(bulk.quoted(KEPT))} FROM rollups WHERE run_pk = ? AND segment = ? AND level = ?"
        f" AND start >= ? AND start < ? AND metric IN ({', '.join('?' * len(place.numbers))}) ORDER BY metric, start",
        (place.run_pk, place.segment, level - 1, low, high, *place.numbers.values()),  # every metric: the key serves
    )
    return from_rows(rows)


def from_rows(rows: Sequence[Any]) -> Buckets:
    """Buckets from stored rows: key, then the columns of KEPT."""
    if not rows:
        return nothing()
    columns: list[Any] = [
        np.array(column, dtype=np.float64 if field.name in NUMBERS else np.int64)
        for field, column in zip(fields(Buckets), zip(*rows, strict=True), strict=True)
    ]
    return Buckets(*columns)


def stored_points(session: Session, place: Place, *, low: int, high: int) -> Buckets:
    """The stored steps [low, high) of a segment, every metric of them."""
    read = bulk.read(session, POINTS, (place.run_pk, place.segment, low, high))
    rows = [
        (step, extra and json.loads(extra), marks and json.loads(marks), *rest) for step, extra, marks, *rest in read
    ]
    return of_columns(rows, place.numbers) if rows else nothing()


def _select_points() -> sa.Select[Any]:
    return sa.select(Step.step, Step.extra, Step.non_finite, *(getattr(Step, name) for name in COLUMNS))


def of_columns(rows: Sequence[Any], numbers: Mapping[str, int]) -> Buckets:
    """Points of stored rows: step, extra, non_finite, then the standard metrics. Metrics not in `numbers` are left."""
    steps, extras, strange, *standard = zip(*rows, strict=True)
    tall: dict[str, dict[int, float]] = {
        name: {at: value for at, value in enumerate(column) if value is not None}
        for name, column in zip(COLUMNS, standard, strict=True)
    }
    for at, (extra, marks) in enumerate(zip(extras, strange, strict=True)):
        for name, value in (extra or {}).items():
            tall.setdefault(name, {})[at] = value
        for name, text in (marks or {}).items():
            tall.setdefault(name, {})[at] = NON_FINITE[text]
    at_steps = np.array(steps, dtype=np.int64)
    parts = []
    for name, number in sorted(numbers.items(), key=lambda pair: pair[1]):
        if values := tall.get(name):
            where = np.array(sorted(values), dtype=np.int64)
            column = np.array([values[at] for at in where.tolist()], dtype=np.float64)
            parts.append(points(np.full(len(where), number, dtype=np.int64), at_steps[where], column))
    return joined(parts)


def _write(session: Session, place: Place, level: int, buckets: Buckets) -> None:
    if len(buckets) == 0:
        return
    columns = {name: getattr(buckets, name).tolist() for name in KEPT}
    if not buckets.count.all():
        for name in NUMBERS:
            columns[name] = [None if value != value else value for value in columns[name]]
    same = {"run_pk": place.run_pk, "segment": place.segment, "level": level, "metric": buckets.key.tolist()}
    bulk.insert(session, Rollup, same | columns)


def fill_in(session: Session, chunk: int = 50_000) -> None:
    """Make the roll-ups of a store that has none, segment by segment, in chunks of so many steps."""
    for run_pk, segment in session.execute(sa.select(Segment.run_pk, Segment.number)).all():
        before: int | None = None
        while rows := _next_rows(session, run_pk, segment, before, chunk):
            place = Place(run_pk, segment, metric_numbers(session, run_pk=run_pk, names=_names(rows)))
            after = rows[-1].step
            grow(session, place, of_columns(rows, place.numbers), before=before, after=after)
            before = after


def _next_rows(session: Session, run_pk: int, segment: int, before: int | None, limit: int) -> Sequence[sa.Row[Any]]:
    found = _select_points().where(Step.run_pk == run_pk, Step.segment == segment)
    if before is not None:
        found = found.where(Step.step > before)
    return session.execute(found.order_by(Step.step).limit(limit)).all()


def _names(rows: Sequence[sa.Row[Any]]) -> list[str]:
    names = {name for row in rows for name in (*(row.extra or ()), *(row.non_finite or ()))}
    standard = [name for name in COLUMNS if name in names or any(getattr(row, name) is not None for row in rows)]
    return standard + sorted(names - set(standard))
