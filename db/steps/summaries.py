"""A metric of many runs in a few statements: its last value, its extremes and a sparkline of each run.

A run is read from the roll-ups of the level that covers it in SPARKLINE_POINTS buckets, and its ends from finer ones
down to the steps (see `buckets.split_by_level`): some tens of rows, whatever the length of the run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Run
from db.steps import reader, step_times
from db.steps.archived import files
from db.steps.archived.files import BUCKET
from db.steps.archived.reading import UnreadableArchive
from db.steps.buckets import coarsen, level_for, points, split_by_level
from db.steps.series import series
from db.steps.step_block import Floats, Ints, RunRange
from db.steps.step_times import Span, StepTime
from db.store import bulk

SPARKLINE_POINTS = 32
"""Buckets of a run at most, besides incomplete ones at the ends of its segments."""
SPANS_PER_QUERY = 5000
"""Rows of VALUES in one statement."""
REFINED_POINTS = 64


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric along the live line of a run."""

    last: float
    """Last reported value, non-finite values included."""
    min: float | None
    max: float | None
    """Minimum and maximum of the finite values; None without any."""
    sparkline: tuple[float, ...]
    """The largest finite value of each bucket of steps, so that no spike is hidden."""


@dataclass(frozen=True, slots=True)
class LiveSpan:
    """Stored steps [first, last) of the live line."""

    segment: int
    first: int
    last: int
    sealed: int
    """End of the segment's roll-ups."""


class _Wanted(NamedTuple):
    """Steps [low, high) of a segment that are read from one level."""

    run_pk: int
    segment: int
    level: int
    low: int
    high: int


class _Piece(NamedTuple):
    """A metric over some steps of a segment: one bucket of a roll-up, or one step. There are many."""

    segment: int
    first_step: int
    last_step: int
    non_finite: int
    min: float | None
    max: float | None
    last: float | None
    """Last finite value; of a single step the value itself."""


_Found = Iterator[tuple[int, str, _Piece]]
"""`Run.pk`, the name of the metric, and a piece of it."""


def summaries(
    session: Session, *, lines: Sequence[tuple[Run, Sequence[LiveSpan]]], metrics: Sequence[str]
) -> dict[int, dict[str, MetricSummary]]:
    """Return by `Run.pk` and name the reported ones of these metrics along each run's live line.

    A run with archived steps is read in buckets of the roll-ups, so that no list waits for a file.
    """
    archived = files.runs_with_files(session, run_pks=[run.pk for run, _ in lines])
    widths = {run.pk: max(_width(line), BUCKET if run.pk in archived else 1) for run, line in lines}
    wanted = [
        _Wanted(run.pk, span.segment, *part)
        for run, line in lines
        for span in line
        for part in split_by_level(level_for(widths[run.pk]), span.first, span.last, span.sealed)
    ]
    pieces = _read(session, wanted, metrics, widths)
    return {
        run.pk: {
            name: _summary(session, run, name, pieces[run.pk, name], widths[run.pk])
            for name in metrics
            if (run.pk, name) in pieces
        }
        for run, _ in lines
    }


def newest_times(
    session: Session, *, lines: Sequence[tuple[Run, Sequence[LiveSpan]]], count: int = 100
) -> dict[int, list[StepTime]]:
    """Return by `Run.pk` the last `count` steps of the newest segment with steps, in order."""
    spans = [Span(run.pk, line[-1].segment, line[-1].first, line[-1].last) for run, line in lines if line]
    return {span.run_pk: steps for span, steps in step_times.newest_times(session, spans, count=count).items()}


def _width(line: Sequence[LiveSpan]) -> int:
    """Steps in a bucket: a power of two."""
    total, width = sum(span.last - span.first for span in line), 1
    while total > SPARKLINE_POINTS * width:
        width *= 2
    return width


def _read(
    session: Session, wanted: Sequence[_Wanted], metrics: Sequence[str], widths: Mapping[int, int]
) -> dict[tuple[int, str], list[_Piece]]:
    """The pieces in step order."""
    found: dict[tuple[int, str], list[_Piece]] = {}
    in_levels = [one for one in wanted if one.level]
    for start in range(0, len(in_levels) if metrics else 0, SPANS_PER_QUERY):
        for pk, name, piece in _from_rollups(session, in_levels[start : start + SPANS_PER_QUERY], metrics):
            found.setdefault((pk, name), []).append(piece)
    for pk, name, piece in _from_steps(session, [one for one in wanted if not one.level], metrics, widths):
        found.setdefault((pk, name), []).append(piece)
    for each in found.values():
        each.sort(key=lambda piece: piece.first_step)
    return found


# The joins are written as CROSS JOIN, of which SQLite keeps the order: from what is wanted to the rows, by their key.


def _from_rollups(session: Session, wanted: Sequence[_Wanted], metrics: Sequence[str]) -> _Found:
    rows = ", ".join(str(tuple(one)) for one in wanted)
    statement = (
        f"WITH wanted(run_pk, segment, level, low, high) AS (VALUES {rows})"
        ' SELECT w.run_pk, m.name, w.segment, r.first_step, r.last_step, r.non_finite, r."min", r."max", r.last'
        " FROM wanted w CROSS JOIN metrics m CROSS JOIN rollups r"
        f" WHERE m.run_pk = w.run_pk AND m.name IN ({', '.join('?' * len(metrics))})"
        " AND r.run_pk = w.run_pk AND r.segment = w.segment AND r.metric = m.number AND r.level = w.level"
        " AND r.start >= w.low AND r.start < w.high"
    )
    for pk, name, *columns in bulk.read(session, statement, tuple(metrics)):
        yield pk, name, _Piece(*columns)


def _from_steps(
    session: Session, wanted: Sequence[_Wanted], metrics: Sequence[str], widths: Mapping[int, int]
) -> _Found:
    """Summarise in buckets of the run's width, besides the last step that has a value."""
    ranges = [RunRange(one.run_pk, StepRange(one.segment, one.low, one.high)) for one in wanted]
    blocks = reader.read_ranges(session, ranges=ranges, metrics=metrics, with_times=False)
    for (pk, part), block in zip(ranges, blocks, strict=True):
        for name, column in block.metrics.items():
            for piece in _pieces(
                part.segment, block.steps[column.reported], column.values[column.reported], widths[pk]
            ):
                yield pk, name, piece


def _pieces(segment: int, steps: Ints, values: Floats, width: int) -> Iterator[_Piece]:
    if len(steps) == 0:
        return
    key = np.zeros(len(steps), dtype=np.int64)
    before = coarsen(points(key[:-1], steps[:-1], values[:-1]), width)
    columns = (before.first_step, before.last_step, before.non_finite, before.min, before.max, before.last)
    for first, last, non_finite, *numbers in zip(*(column.tolist() for column in columns), strict=True):
        yield _Piece(segment, first, last, non_finite, *(None if number != number else number for number in numbers))
    step, value = int(steps[-1]), float(values[-1])
    finite = value if math.isfinite(value) else None
    yield _Piece(segment, step, step, int(finite is None), finite, finite, value)


def _summary(session: Session, run: Run, name: str, pieces: Sequence[_Piece], width: int) -> MetricSummary:
    buckets: dict[int, float] = {}
    for piece in pieces:
        if piece.max is not None:
            bucket = piece.first_step // width
            buckets[bucket] = max(buckets.get(bucket, piece.max), piece.max)
    last = _last(session, run, name, pieces[-1])
    return MetricSummary(
        last=math.nan if last is None else last,
        min=min((piece.min for piece in pieces if piece.min is not None), default=None),
        max=max(buckets.values(), default=None),
        sparkline=tuple(buckets.values()),
    )


def _last(session: Session, run: Run, name: str, piece: _Piece) -> float | None:
    """The newest value of the last piece; None where it was not finite.

    A bucket does not say which of its values was not finite: it is read again at finer resolutions.
    """
    first, last, non_finite, value = piece.first_step, piece.last_step, piece.non_finite, piece.last
    while non_finite and first < last:
        steps = StepRange(piece.segment, first, last + 1)
        try:
            finer = series(session, run=run, step_ranges=[steps], metric=name, points=REFINED_POINTS)
        except UnreadableArchive:  # a list is shown without a file; this is the last value that is finite
            break
        first, last, non_finite, value = (
            finer.first_step[-1], finer.last_step[-1], finer.non_finite[-1], finer.last[-1],
        )  # fmt: skip
    return value
