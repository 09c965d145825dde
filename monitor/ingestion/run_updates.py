"""Turns the logs of an MLflow client into a report: the rest of the way is `reports`.

Scalars are joined into rows first (`open_rows`). The rows that wait are stored with the answer, so that any collector
goes on with them. Of several values of one metric at one step the last one counts.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db import commands, queries, run_settings
from db.models import MlflowRun, Run
from db.records import live_runs
from db.runs import mlflow
from db.steps import writer
from db.steps.codec import DamagedBlock
from lossguard.sources.names import AS_LOGGED
from lossguard.sources.readers.mlflow_stores import facts_in
from lossguard.vocabulary.metrics import COUNTS
from lossguard.vocabulary.protocol import MAX_COUNT, checked_json
from lossguard.vocabulary.secrets import mask_json
from lossguard.vocabulary.source_facts import EVERY_STEP, SOURCE
from lossguard.vocabulary.states import RunState, SegmentReason
from monitor.ingestion import lease, runs
from monitor.ingestion.lease import Claim
from monitor.ingestion.open_rows import OpenRow, Scalar, ScalarPlace
from monitor.ingestion.reports import ReportResult, take_report
from monitor.ingestion.run_cache import CachedRun, RunCache
from monitor.ingestion.run_state import detection_state
from monitor.ingestion.run_state.logged_run import MAX_SEGMENTS, LoggedMetric, LoggedRun
from monitor.problems import Problem, among_damaged, run_not_found, unknown, without_retry
from monitor.schemas import EventIn, ReportIn, SegmentIn

log = logging.getLogger(__name__)

RUN_NAME = "mlflow.runName"
"""Tag that holds the name of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunUpdate:
    """The content of one request. An empty one completes the rows that are due; the client has not sent it."""

    metrics: Sequence[LoggedMetric] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    removed_tag: str | None = None
    inputs: Sequence[Mapping[str, Any]] = ()
    name: str | None = None
    state: RunState | None = None
    ended_at: float | None = None
    """Unix seconds."""

    @property
    def is_reported(self) -> bool:
        """True if the client sent it."""
        return self != RunUpdate()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    max_metrics: int
    max_segments: int


class _UpdateContext:
    """One update of a run that is locked."""

    def __init__(
        self, session: Session, run_id: str, update: RunUpdate, *, claim: Claim, cache: RunCache, limits: RunLimits
    ) -> None:
        self.session, self.run_id, self.claim, self.cache, self.limits = session, run_id, claim, cache, limits
        self.reported_at = claim.now if update.is_reported else None
        self.late: dict[tuple[int, int], OpenRow] = {}
        self.num_accepted = 0
        self.logged = LoggedRun()
        self.cached = self._lock()

    def _lock(self, logged: LoggedRun | None = None) -> CachedRun:
        """Lock the run; `logged` is what it logged, where it is not to be read."""
        cached = self.cache.lock(self.session, self.run_id, self.reported_at)
        cached.logged = logged or cached.logged
        if cached.logged is None:
            cached.logged = self._stored(cached.run)
        self.logged = cached.logged
        return cached

    def _stored(self, run: Run) -> LoggedRun:
        """Return what the run logged so far. A state that is damaged begins anew, without its open rows."""
        stored = self.session.get(MlflowRun, run.pk, populate_existing=True)
        if stored is None:
            raise run_not_found(self.run_id)
        try:
            logged = LoggedRun.from_json(stored.state)
        except detection_state.UNREADABLE as error:
            log.warning("the open rows of run %s are lost: their stored state is damaged (%r)", run.id, error)
            logged = LoggedRun()
        if not logged.segments:  # a new run has none
            segments = queries.segments(self.session, run=run)[-MAX_SEGMENTS:]
            logged.segments = [(segment.number, segment.opened_at) for segment in segments]
        return logged

    def take(self, metrics: Sequence[LoggedMetric]) -> None:
        """Put every metric where it belongs, and store the rows that this completes."""
        self.logged.learn(metric.key for metric in metrics)
        most = self.limits.max_metrics
        if self.logged.num_names + 1 > most:  # with the perplexity
            detail = f"a run may have {most} metrics; {metrics[-1].key!r} is one too many; raise LOSSGUARD_MAX_METRICS"
            raise Problem(422, "too many metrics; nothing was stored", detail, ["body", "key"])
        for metric in metrics:
            scalar = self.logged.scalar(metric)
            if scalar.name in COUNTS and math.isfinite(scalar.value) and abs(scalar.value) >= MAX_COUNT:
                detail = f"metric {metric.key!r} is {metric.value!r}, which is too large for a count"
                raise Problem(422, "the metric is malformed; nothing was stored", detail, ["body", "value"])
            self._put(scalar)
            self.logged.note_latest(metric)

    def _put(self, scalar: Scalar) -> None:
        rows = self.logged.rows
        number = self.logged.segment_at(scalar.time)
        if number is None:
            self._open_segment(scalar, SegmentReason.START)
        elif number != self.logged.segments[-1][0]:
            self._note_late(number, scalar)
            return
        match rows.place(scalar):
            case ScalarPlace.BACK if scalar.step == 0:
                self.logged.unsettled.append(scalar)
            case ScalarPlace.BACK:
                self._go_back(scalar)
            case ScalarPlace.OPEN:
                if scalar.name in rows.reached:
                    self.settle()
                rows.add(scalar, self.claim.now)
            case ScalarPlace.LATE:
                self._note_late(number or 0, scalar)
                rows.note(scalar)

    def _go_back(self, scalar: Scalar) -> None:
        """A segment begins with this scalar, or with those of step 0 before it."""
        scalars = [*self.logged.unsettled, scalar]
        self.logged.unsettled.clear()
        self.store(self.logged.rows.take_all())
        self._open_segment(scalars[0], SegmentReason.REWIND)
        for each in scalars:
            self.logged.rows.add(each, self.claim.now)

    def settle(self) -> None:
        """Let results, which come for step 0, join the newest step, under names that do not stand for a signal."""
        for scalar in self.logged.unsettled:
            result = scalar._replace(name=AS_LOGGED + scalar.name, step=max(self.logged.rows.reached.values()))
            if result.step in self.logged.rows.rows:
                self.logged.rows.add(result, self.claim.now)
            else:
                self._note_late(self.logged.segments[-1][0], result)
        self.logged.unsettled.clear()

    def _note_late(self, segment: int, scalar: Scalar) -> None:
        new = OpenRow(scalar.step, scalar.time, self.claim.now)
        self.late.setdefault((segment, scalar.step), new).values[scalar.name] = scalar.value

    def _open_segment(self, scalar: Scalar, reason: SegmentReason) -> None:
        """Open a segment that begins with this scalar. The lock is taken anew, because the detection has changed."""
        number = self.logged.segments[-1][0] + 1 if self.logged.segments else 0
        spec = SegmentIn(key=f"mlflow-{number}", fork_step=scalar.step, reason=reason, opened_at=scalar.time)
        try:
            opened = runs.open_segment(
                self.session, self.run_id, spec, claim=self.claim, max_segments=self.limits.max_segments
            )
        except Problem as problem:
            raise without_retry(problem) from None
        self.cached = self._lock(self.logged)
        self.logged.begin_segment(opened.number, scalar.time)

    def store(self, rows: Sequence[OpenRow]) -> None:
        """Give complete rows of the newest segment to the ingestion, as one report."""
        if rows:
            is_known_better = self.logged.observe(rows)
            is_known_better |= self.logged.num_declared == 0 and self.logged.source.facts != EVERY_STEP
            events = []
            if is_known_better:  # an event says how the rows from here on are made
                self.logged.num_declared += 1
                key, details = f"mlflow-source-{self.logged.num_declared}", self.logged.source.facts.to_details()
                events = [EventIn(key=key, step=rows[0].step, time=rows[0].time, kind=SOURCE, details=details)]
            self._report(self.logged.segments[-1][0], rows, events)

    def store_late(self) -> None:
        """Store what came late: with its step if that is known, else as a step of its own."""
        by_segment: dict[int, list[OpenRow]] = defaultdict(list)
        for (number, _), row in sorted(self.late.items(), key=lambda item: item[0]):
            by_segment[number].append(row)
        for number, rows in by_segment.items():
            try:
                self._store_late_rows(number, rows)
            except DamagedBlock as error:
                raise without_retry(among_damaged([row.step for row in rows], error)) from None

    def _store_late_rows(self, number: int, rows: Sequence[OpenRow]) -> None:
        segment = self.cached.segment(self.session, number)
        assert segment is not None
        run, steps = self.cached.run, [row.step for row in rows]
        known = writer.known_steps(self.session, run=run, segment=number, steps=steps)
        if new := [row for row in rows if row.step not in known]:
            self._report(number, new)
        values = {row.step: row.values for row in rows if row.step in known}
        numbers = writer.complete_steps(
            self.session, run=run, segment=segment, values=values, numbers=self.cached.kept.numbers
        )
        self.cached.kept = writer.WriterState(numbers)  # the steps of the open bucket may have changed

    def _report(self, segment: int, rows: Sequence[OpenRow], events: Sequence[EventIn] = ()) -> None:
        names = sorted({name for row in rows for name in row.values})
        report = ReportIn.model_construct(
            segment=segment,
            steps=[row.step for row in rows],
            times=[row.time for row in rows],
            metrics={name: [row.values.get(name) for row in rows] for name in names},
            events=list(events),
        )
        result = take_report(self.session, report, lambda: self.cached, claim=self.claim)
        self.num_accepted += result.num_accepted


def take_update(
    session: Session, run_id: str, update: RunUpdate, *, claim: Claim, cache: RunCache, limits: RunLimits
) -> ReportResult:
    """Store an update of a run and act on it. Raises Problem; then nothing of it is stored."""
    context = _UpdateContext(session, run_id, update, claim=claim, cache=cache, limits=limits)
    if update.params or update.tags or update.removed_tag is not None or update.inputs or update.name is not None:
        _describe(session, context.cached.run, context.logged, update)
    context.take(sorted(update.metrics, key=lambda metric: metric.timestamp))
    rows = context.logged.rows
    if update.state is not None:
        context.settle()
    context.store(rows.take_all() if update.state is not None else rows.take_complete(claim.now))
    context.store_late()
    state = context.logged.to_json()
    mlflow.save_state(session, run_pk=context.cached.run.pk, state=state, has_open_rows=bool(rows.rows))
    run = context.cached.run
    if update.state is RunState.RUNNING:
        _go_on(session, context.cached, now=claim.now)
    elif update.state is not None:
        ended_at = claim.now if update.ended_at is None else update.ended_at
        commands.finish_run(session, run=run, state=update.state, at=ended_at, now=claim.now)
        if live_runs.is_stalled_or_slow(session, run_pk=run.pk):
            cached = context.cached
            ended = cached.engine.end_run(runs.end_of(run))
            detection_state.save(session, run, cached.engine, ended, segment=cached.newest_segment, now=claim.now)
        lease.release(run, now=claim.now)
    return ReportResult(context.num_accepted, 0, (), rows_due_at=rows.due_at())


def _go_on(session: Session, cached: CachedRun, *, now: float) -> None:
    """Let the run be running again, as if its process had registered: the time since its last step is no stall."""
    run, status = cached.run, cached.status
    run.state, run.finished_at, run.archived_at = RunState.RUNNING, None, None
    status.last_step_at, status.stall_after, status.expected_by = now, None, None
    cached.engine.throughput.gaps.skip()
    detection_state.save(session, run, cached.engine, [], segment=cached.newest_segment, now=now)


def _describe(session: Session, run: Run, logged: LoggedRun, update: RunUpdate) -> None:
    """Record parameters, tags, inputs and the name, without the secrets in them."""
    stored = session.get_one(MlflowRun, run.pk)
    params, tags = mask_json(dict(update.params)), mask_json(dict(update.tags))
    for key, value in params.items():
        if stored.params.get(key, value) != value:
            detail = f"the param {key!r} is {stored.params[key]!r:.200} already; log the new value under another key"
            raise Problem(422, "a param cannot be changed; nothing was stored", detail, ["body", "params", key])
    name = update.name if update.name is not None else tags.get(RUN_NAME)
    if name is not None:
        tags[RUN_NAME] = run.name = name[:256]
    if update.removed_tag is not None and update.removed_tag not in stored.tags:
        raise unknown("tag", update.removed_tag)
    stored.params = stored.params | params
    stored.tags = {key: value for key, value in (stored.tags | tags).items() if key != update.removed_tag}
    stored.inputs = [*stored.inputs, *mask_json([dict(one) for one in update.inputs])]
    facts = facts_in(stored.params)
    if update.params and facts != EVERY_STEP:
        logged.source.know(facts)
    config, before = config_of(stored.params, stored.tags), run.config
    try:
        checked_json([config, stored.inputs])
    except ValueError as error:
        raise Problem(422, "the run is described by too much; nothing was stored", str(error), ["body"]) from None
    if config != before:
        run.config = config
        run_settings.save(session, run)


def config_of(params: Mapping[str, Any], tags: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run: its params, and its tags under one name."""
    return {**params, "tags": dict(tags)} if tags else dict(params)
