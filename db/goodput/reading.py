"""The time of a stored run by cause, at a cost that hardly depends on the run's length.

At first the segments are cut into at most MAX_STRETCHES stretches: by the times of their last steps, which the key of
the table finds, and the roll-ups of what the loop reports. Stretches that took much longer than usual are cut again,
until each of their rows stands alone: only then a hang differs from slow steps. Where numbers of steps are missing, the
first row after the gap is set apart at once, so that a gap costs no further cuts.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from db import lineage, queries
from db.goodput import accounting
from db.goodput.accounting import Breakdown, Interval, RunTimes, SegmentTimes, Stretch, TimeCause
from db.lineage import END, StepRange
from db.models import Intervention, Order, Run, RunStatus, Segment
from db.steps import step_times
from db.steps.archived.reading import UnreadableArchive
from db.steps.buckets import Buckets
from db.steps.codec import DamagedBlock
from db.steps.series import buckets_by_range
from db.steps.step_times import At, StepTime
from lossguard.vocabulary.metrics import CHECKPOINT_SECONDS, EVALUATION_SECONDS, PAUSE_SECONDS
from lossguard.vocabulary.states import InterventionState, OrderKind, OrderState, RunState

STEP_SECONDS = "step_seconds"
METRICS = (STEP_SECONDS, CHECKPOINT_SECONDS, EVALUATION_SECONDS, PAUSE_SECONDS)
"""Metrics by which a loop says what the time since its last step was used for."""
MAX_STRETCHES = 512
"""Maximum stretches of a run; one with more segments has one per segment at least."""
MAX_SUSPECTS = 64
"""Stretches that are cut again, those with the most unexplained time first."""
MAX_ROUNDS = 16
"""Times that suspects are cut, each time into eight or more: enough for 10^14 steps."""

Sums = Mapping[tuple[int, int], tuple[float, int]]
"""(position of a range, start of a bucket) -> (mean, number of values) of a metric."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Steps of one segment, from the one after `before` up to `last`."""

    segment: int
    cause: TimeCause
    before: StepTime
    """The row before; before a segment's first row, its `_step_before` and the time at which it was opened."""
    last: int
    is_row: bool = False
    """True if it is known to have one row."""

    @property
    def steps(self) -> StepRange:
        return StepRange(self.segment, self.last if self.is_row else self.before.step + 1, self.last + 1)


@dataclass(frozen=True, slots=True)
class _Records:
    """A run with what is stored of it besides its steps."""

    run: Run
    opened: Sequence[Segment]
    """Segments that led the live line, in the order in which they were opened."""
    acted: Sequence[tuple[Intervention, Order | None]]
    status: RunStatus | None


def breakdown(session: Session, *, run: Run, now: float) -> Breakdown:
    """Return the time of a run by cause, from its start until it ended or `now` (unix seconds).

    Raises DamagedBlock and UnreadableArchive.
    """
    (records,) = _read_records(session, [run])
    return _breakdown(session, records, now)


def breakdowns(session: Session, *, runs: Sequence[Run], now: float) -> dict[int, Breakdown]:
    """Return the breakdowns of some runs by their keys: all but their steps is read together.

    A run whose steps cannot be read is left out: the others have theirs.
    """
    found = {}
    for records in _read_records(session, runs):
        with suppress(DamagedBlock, UnreadableArchive):
            found[records.run.pk] = _breakdown(session, records, now)
    return found


def _breakdown(session: Session, records: _Records, now: float) -> Breakdown:
    stretches = _Stretches(session, records.run, records.opened)
    times = _run_times(records, now)
    usual = accounting.usual_step_seconds(stretches.segments())
    for _ in range(MAX_ROUNDS):
        if not stretches.cut_suspects(usual, times.holds):
            break
    return accounting.break_down(replace(times, segments=stretches.segments()), usual)


def _read_records(session: Session, runs: Sequence[Run]) -> Iterator[_Records]:
    pks = [run.pk for run in runs]
    segments = queries.by_run(session, pks, Segment, by=Segment.number)
    orders = queries.by_run(session, pks, Order, by=Order.id)
    interventions = queries.by_run(session, pks, Intervention, by=Intervention.number)
    running = [run.pk for run in runs if run.state == RunState.RUNNING]
    statuses = queries.by_run(session, running, RunStatus, by=RunStatus.run_pk)
    for run in runs:
        order_of = {order.intervention: order for order in orders[run.pk]}
        yield _Records(
            run=run,
            opened=sorted(
                (one for one in segments[run.pk] if not one.is_beside), key=lambda one: (one.opened_at, one.number)
            ),
            acted=[(one, order_of.get(one.number)) for one in interventions[run.pk]],
            status=next(iter(statuses[run.pk]), None),
        )


class _Stretches:
    """The stretches of all segments, which are cut finer where that matters."""

    def __init__(self, session: Session, run: Run, opened: Sequence[Segment]) -> None:
        self._session, self._run, self._opened = session, run, opened
        self._cuts: dict[int, list[tuple[_Part, Stretch]]] = {segment.number: [] for segment in opened}
        for cut in self._cut(self._parts()):
            for part, stretch in cut:
                self._cuts[part.segment].append((part, stretch))

    def segments(self) -> list[SegmentTimes]:
        return [
            SegmentTimes(
                opened_at=segment.opened_at,
                cause=accounting.cause_of(segment.reason, is_first=index == 0),
                stretches=[stretch for _, stretch in self._cuts[segment.number]],
            )
            for index, segment in enumerate(self._opened)
        ]

    def cut_suspects(self, usual: float, holds: Sequence[Interval]) -> bool:
        """Cut the stretches again that may contain a hang: whether there were any."""
        found = [
            (excess, segment.number, index)
            for segment, times in zip(self._opened, self.segments(), strict=True)
            for excess, index in accounting.suspects(times, usual, holds)
        ]
        chosen = [(number, index) for _, number, index in sorted(found, reverse=True)[:MAX_SUSPECTS]]
        finer = self._cut([self._cuts[number][index][0] for number, index in chosen])
        for (number, index), cut in sorted(zip(chosen, finer, strict=True), key=lambda one: one[0], reverse=True):
            self._cuts[number][index : index + 1] = cut
        return bool(chosen)

    def _parts(self) -> list[_Part]:
        """The first step of each segment, then those that are live and those that were discarded for the same cause."""
        ends = _ends_of_parts(self._opened)
        firsts = [self._at(one.number, one.first_step) for one in self._opened if one.first_step is not None]
        lasts = [self._at(number, last) for number, parts in ends.items() for last, _ in parts]
        rows = step_times.at_or_before(self._session, [*firsts, *lasts])
        found = []
        for segment in self._opened:
            if segment.first_step is None:
                continue
            before = StepTime(_step_before(segment), segment.opened_at)
            for last, cause in [(segment.first_step, ends[segment.number][0][1]), *ends[segment.number]]:
                row = rows.get(self._at(segment.number, last), before)
                if row.step > before.step:
                    found.append(_Part(segment.number, cause, before, row.step))
                    before = row
        return found

    def _cut(self, parts: Sequence[_Part]) -> list[list[tuple[_Part, Stretch]]]:
        """Cut each part into stretches of equal width: at most MAX_STRETCHES together, if there are no more parts."""
        if not parts:
            return []
        wanted = [self._at(part.segment, part.before.step) for part in parts]
        firsts = step_times.after(self._session, wanted)
        split = [_after_gap(part, firsts.get(at)) for part, at in zip(parts, wanted, strict=True)]
        cuts = iter(self._cut_evenly([part for own in split for part in own]))
        return [[each for _ in own for each in next(cuts)] for own in split]

    def _at(self, segment: int, step: int) -> At:
        return At(self._run.pk, segment, step)

    def _cut_evenly(self, parts: Sequence[_Part]) -> list[list[tuple[_Part, Stretch]]]:
        """Cut each part into stretches of equal width."""
        width, buckets = buckets_by_range(
            self._session,
            run=self._run,
            step_ranges=[part.steps for part in parts],
            metrics=METRICS,
            points=MAX_STRETCHES,
        )
        sums = {name: _sums(found) for name, found in buckets.items()}
        wanted = [self._bucket_ends(part, width) for part in parts]
        rows = step_times.at_or_before(self._session, [at for own in wanted for at in own])
        return [
            list(_stretches(part, [rows.get(at, part.before) for at in own], index, width, sums))
            for index, (part, own) in enumerate(zip(parts, wanted, strict=True))
        ]

    def _bucket_ends(self, part: _Part, width: int) -> list[At]:
        """The last step of each bucket that the part touches; of the last bucket, that of the part."""
        first = part.steps.first // width * width + width - 1
        return [self._at(part.segment, min(end, part.last)) for end in range(first, part.last + width, width)]


def _step_before(segment: Segment) -> int:
    """The step before those of a segment's first row: -1 at the beginning of a run.

    The row may stand for several steps. A segment that forks before it has them from the fork on.
    """
    first, last, fork = segment.first_step, segment.last_step, segment.fork_step
    assert first is not None
    assert last is not None
    if fork is not None and fork < first:
        return fork - 1
    stride = (last - first) // (segment.num_steps - 1) if segment.num_steps > 1 else 1
    return max(-1, first - max(1, stride))


def _after_gap(part: _Part, first: StepTime | None) -> list[_Part]:
    """Set the first row of a part apart if numbers of steps are missing before it."""
    if first is None or first.step == part.before.step + 1 or first.step > part.last:
        return [part]
    row = replace(part, last=first.step, is_row=True)
    return [row] if first.step == part.last else [row, replace(part, before=first)]


def _stretches(
    part: _Part, rows: Iterable[StepTime], index: int, width: int, sums: Mapping[str, Sums]
) -> Iterator[tuple[_Part, Stretch]]:
    """The part cut at these rows; `index` is the position of its range in `sums`, `width` that of their buckets."""
    before = part.before
    for row in rows:
        if row.step <= before.step:
            continue  # a bucket without a step
        key = (index, row.step // width * width)
        step, *durations = (sums.get(name, {}).get(key, (0.0, 0)) for name in METRICS)
        saving, evaluating, pausing = (max(0.0, mean * count) for mean, count in durations)
        yield (
            replace(part, before=before, last=row.step),
            Stretch(
                begin=before.time,
                end=row.time,
                num_steps=row.step - before.step,
                cause=part.cause,
                step_seconds=max(0.0, step[0]) if step[1] else None,
                checkpoint_seconds=saving,
                evaluation_seconds=evaluating,
                pause_seconds=pausing,
                is_single=width == 1 or part.is_row,
            ),
        )
        before = row


def _sums(buckets: Buckets) -> Sums:
    keys = zip(buckets.key.tolist(), buckets.start.tolist(), strict=True)
    values = zip(buckets.mean.tolist(), buckets.count.tolist(), strict=True)
    return {key: value for key, value in zip(keys, values, strict=True) if value[1]}


def _ends_of_parts(opened: Sequence[Segment]) -> dict[int, list[tuple[int, TimeCause]]]:
    """Segment -> (last step, cause) of its parts in step order; every step of a segment is in one of them."""
    causes = [
        (one, accounting.cause_of(fork.segment.reason)) for fork in lineage.forks(opened) for one in fork.discarded
    ]
    causes += [(one, TimeCause.TRAINING) for one in lineage.live_line(opened)]
    found: dict[int, list[tuple[int, TimeCause]]] = {}
    for part, cause in sorted(causes, key=lambda one: (one[0].segment, one[0].first)):
        found.setdefault(part.segment, []).append((part.last or END, cause))
    return {
        one.number: [
            *((min(end - 1, one.last_step), cause) for end, cause in found.get(one.number, [])),
            (one.last_step, TimeCause.OTHER),
        ]
        for one in opened
        if one.last_step is not None
    }


def _run_times(records: _Records, now: float) -> RunTimes:
    """Return all times but those of the segments."""
    run, status = records.run, records.status
    ended_at = run.last_report_at if run.finished_at is None else run.finished_at
    openings = [segment.opened_at for segment in records.opened]
    return RunTimes(
        started_at=run.started_at,
        until=max(run.started_at, now if run.state == RunState.RUNNING else ended_at),
        state=run.state,
        holds=accounting.merged([_hold(*each, openings, now) for each in records.acted]),
        decisions=accounting.merged([_decision(*each) for each in records.acted]),
        expected_by=None if status is None else status.expected_by,
    )


NEVER = (0.0, 0.0)


def _hold(intervention: Intervention, order: Order | None, openings: Sequence[float], now: float) -> Interval:
    """The time in which the run stood still for this hold. A new segment of the live line ends it; `openings` rise."""
    if intervention.kind != OrderKind.HOLD or order is None or order.state != OrderState.APPLIED:
        return NEVER
    began = order.answered_at or intervention.created_at
    ended = now if intervention.state == InterventionState.APPLIED else intervention.changed_at
    return began, min([ended, *openings[bisect_right(openings, began) :][:1]])


def _decision(intervention: Intervention, order: Order | None) -> Interval:
    """Return the time in which a person was asked about this rollback; NEVER where it was ordered at once."""
    if intervention.kind != OrderKind.ROLLBACK or order is None:
        return NEVER
    return intervention.created_at, order.created_at
