"""Roll-ups: charts of long runs read them instead of the steps.

A bucket is written once, when the segment has passed its end (it is *sealed*), in the transaction of the report that
passed it; steps without a sealed bucket are read from the level below, down to the steps themselves. So a step costs
the same whatever the length of the run, and a report of one step writes roll-ups only at the end of a bucket. Steps
that arrive after their successors rewrite the sealed buckets.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.models import Metric, Rollup
from db.steps import blocks, reader
from db.steps.buckets import FINEST, STORED, Buckets, coarsen, from_rows, joined, nothing, points_of, width
from db.steps.step_block import Ints, RunRange, StepBlock, Target, merged
from db.store import bulk


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


MAX_OPEN_VALUES = 4_096
"""Values of an open bucket that is kept in memory: about 40 kB of a run."""


@dataclass(frozen=True, slots=True)
class OpenBucket:
    """The steps of a segment in its open bucket of the finest level: they are sealed together with later ones."""

    begin: int
    end: int
    """The step behind the segment's last one."""
    steps: StepBlock

    @classmethod
    def of(cls, begin: int, end: int, steps: StepBlock) -> "OpenBucket | None":
        """Return the open bucket; None if it has too many values to be kept."""
        if len(steps) * len(steps.metrics) > MAX_OPEN_VALUES:
            return None
        return cls(begin, end, steps.at(np.arange(len(steps))))  # a copy: a slice would keep the whole report

    def holds(self, segment: int, begin: int, end: int) -> bool:
        """True if these are the steps [begin, end) of the segment."""
        return (self.steps.segment, self.begin, self.end) == (segment, begin, end)


def grow(
    session: Session, target: Target, new: StepBlock, *, before: int | None, open_bucket: OpenBucket | None = None
) -> OpenBucket | None:
    """Add steps that were just stored: the last step of the segment was `before`.

    `open_bucket`: what the last call returned, if nothing of the segment has changed since: it need not be read then.
    """
    known, last, size = 0 if before is None else before + 1, int(new.steps[-1]), width(FINEST)
    if new.steps[0] < known:
        num_late, open_bucket = int(np.searchsorted(new.steps, known)), None
        rewrite(session, target, new.steps[:num_late], known - 1)
        new = new.at(slice(num_late, None))
    if (last + 1) // size <= known // size:
        return None
    return _seal(session, target, new, known, last, open_bucket)


def _seal(
    session: Session, target: Target, new: StepBlock, known: int, last: int, open_bucket: OpenBucket | None
) -> OpenBucket | None:
    """Write the buckets that end within (known, last + 1]; `new` holds all steps from `known` on."""
    level, size = FINEST, width(FINEST)
    begin, end = known // size * size, (last + 1) // size * size
    steps = new
    if begin != known and target.numbers:
        if open_bucket is not None and open_bucket.holds(target.segment, begin, known):
            before = open_bucket.steps
        else:
            before = stored_steps(session, target, low=begin, high=known)
        steps = merged([before, new])
    num_sealed = int(np.searchsorted(steps.steps, end))
    sealed = steps.at(slice(num_sealed))
    below = coarsen(points_of(sealed.steps, sealed.metrics, target.numbers), size)
    _write(session, target, level, below)
    open_from, reached = end, begin
    while (last + 1) // (size := width(level := level + 1)) > known // size:
        begin, end = known // size * size, (last + 1) // size * size
        older = children(session, target, level=level, low=begin, high=reached)
        ready = joined([older, below])
        below = coarsen(ready.where(ready.start < end), size)
        _write(session, target, level, below)
        reached = begin
    return OpenBucket.of(open_from, last + 1, steps.at(slice(num_sealed, None)))


def rewrite(session: Session, target: Target, steps: Ints, before: int) -> None:
    """Compute every sealed bucket again that holds one of these steps. Raises DamagedBlock where values are gone."""
    level = FINEST
    perplexity = [number for name, number in target.numbers.items() if name == "perplexity"]
    while (size := width(level)) <= before + 1:  # no wider bucket is sealed, and its width may be beyond int64
        starts = np.unique(steps // size * size)
        starts = starts[starts + size <= before + 1]
        if len(starts) == 0:
            return
        for begin, end in _adjacent(starts, size):
            _delete(session, target, level, perplexity, begin, end)  # it may go with its loss
            rewritten = coarsen(children(session, target, level=level, low=begin, high=end), size)
            if level == FINEST:
                _check_nothing_is_lost(session, target, rewritten, begin, end)
            _delete(session, target, level, np.unique(rewritten.key).tolist(), begin, end)
            _write(session, target, level, rewritten)
        level += 1


def _delete(session: Session, target: Target, level: int, metrics: Sequence[int], begin: int, end: int) -> None:
    """Delete the buckets of a level that begin in [begin, end)."""
    session.execute(
        sa.delete(Rollup).where(
            *(Rollup.run_pk == target.run_pk, Rollup.segment == target.segment, Rollup.level == level),
            *(Rollup.metric.in_(metrics), Rollup.start >= begin, Rollup.start < end),
        )
    )


def _check_nothing_is_lost(session: Session, target: Target, rewritten: Buckets, begin: int, end: int) -> None:
    """No bucket may get fewer values: of values that somebody dropped, the roll-ups alone tell. Raises DamagedBlock.

    But a perplexity goes when its loss is replaced by one that has none.
    """
    places = zip(rewritten.key.tolist(), rewritten.start.tolist(), strict=True)
    found = dict(zip(places, (rewritten.count + rewritten.non_finite).tolist(), strict=True))
    statement = (
        "SELECT runs.id, metrics.name, number, start, count + non_finite FROM rollups JOIN metrics"
        " ON metrics.run_pk = rollups.run_pk AND number = metric JOIN runs ON pk = metrics.run_pk"
        " WHERE rollups.run_pk = ? AND segment = ? AND level = ? AND start >= ? AND start < ?"
        f" AND metric IN ({', '.join('?' * len(target.numbers))}) ORDER BY number, start"  # so that the key serves
    )
    values = (target.run_pk, target.segment, FINEST, begin, end, *target.numbers.values())
    for run_id, metric, number, start, num_values in bulk.read(session, statement, values):
        if metric != "perplexity" and found.get((number, start), 0) < num_values:
            last = start + width(FINEST) - 1
            raise blocks.missing(run_id, metric, target.segment, start, last)


def _adjacent(starts: Ints, size: int) -> Iterator[tuple[int, int]]:
    """[begin, end) of every group of adjacent buckets."""
    cuts = np.flatnonzero(np.diff(starts) != size) + 1
    for part in np.split(starts, cuts):
        yield int(part[0]), int(part[-1]) + size


def children(session: Session, target: Target, *, level: int, low: int, high: int) -> Buckets:
    """The buckets (or the steps) one level below the buckets [low, high) of `level`, of every metric of the run."""
    if low >= high or not target.numbers:
        return nothing()
    if level == FINEST:
        block = stored_steps(session, target, low=low, high=high)
        return points_of(block.steps, block.metrics, target.numbers)
    rows = bulk.read(
        session,
        f"SELECT metric, {', '.join(bulk.quoted(STORED))} FROM rollups"
        " WHERE run_pk = ? AND segment = ? AND level = ? AND start >= ? AND start < ?"
        f" AND metric IN ({', '.join('?' * len(target.numbers))}) ORDER BY metric, start",
        (target.run_pk, target.segment, level - 1, low, high, *target.numbers.values()),  # every metric: the key serves
    )
    return from_rows(rows)


def stored_steps(session: Session, target: Target, *, low: int, high: int) -> StepBlock:
    """The stored steps [low, high) of a segment, every metric of them."""
    steps = RunRange(target.run_pk, StepRange(target.segment, low, high))
    (block,) = reader.read_ranges(session, ranges=[steps], metrics=list(target.numbers), with_times=False)
    return block


def _write(session: Session, target: Target, level: int, buckets: Buckets) -> None:
    if len(buckets) == 0:
        return
    same = {"run_pk": target.run_pk, "segment": target.segment, "level": level, "metric": buckets.key.tolist()}
    bulk.insert(session, Rollup, same | buckets.to_lists())
