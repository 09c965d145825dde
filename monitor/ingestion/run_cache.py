"""The state that a report needs, kept between two reports of a run: its newest segment, detection, open orders, status.

Reading all of it again for every report would cost more than the report itself. A cached run is valid as long as no
other transaction has locked the run: every lock raises the run's revision.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from db import commands, queries
from db.models import Order, Run, RunStatus, Segment
from db.steps import rollups, writer
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, why_unguarded
from monitor.detection import DetectionEngine, Effect
from monitor.ingestion import orders
from monitor.ingestion.orders import ProposedRollback
from monitor.ingestion.run_state import detection_state
from monitor.ingestion.run_state.detection_state import SNAPSHOT_EVERY
from monitor.ingestion.run_state.logged_run import LoggedRun
from monitor.problems import unknown

MAX_UNSAVED_ROWS = 256
"""The saved detection state lags at most so many rows behind: whoever loads it feeds them again, in about 2 ms."""
MAX_REPLAYED_ROWS = 32
"""A run of which so many rows were fed again when it was loaded is saved with its next report: two collectors that take
turns load it for each."""
MAX_CACHED_RUNS = 2_048
"""About 0.1 MB each."""


@dataclass(slots=True)
class CachedRun:
    """A run that is locked in the current transaction."""

    run: Run
    newest_segment: Segment | None
    """The segment that the detection follows: late reports of an abandoned one are stored only."""
    kept: writer.WriterState
    """Rows that the next steps need not read again."""
    open_orders: Sequence[Order]
    engine: DetectionEngine
    status: RunStatus
    num_unsaved_rows: int
    """Rows that the engine has seen and its saved state has not; MAX_UNSAVED_ROWS where it is to be saved soon."""
    proposal: ProposedRollback | None = None
    """The question to the trainer while a rollback waits for approval."""
    logged: LoggedRun | None = None
    """The values that an MLflow client logged, once they were needed."""

    @classmethod
    def load(cls, session: Session, run: Run) -> "CachedRun":
        engine, num_replayed = detection_state.load_and_replay(session, run)
        is_due = num_replayed >= MAX_REPLAYED_ROWS
        return cls(
            run=run,
            newest_segment=queries.newest_segment(session, run=run),
            kept=writer.WriterState(rollups.metric_numbers(session, run_pk=run.pk)),
            open_orders=_open_orders(session, run),
            engine=engine,
            status=commands.run_status_of(session, run=run, now=run.last_report_at),
            num_unsaved_rows=MAX_UNSAVED_ROWS if is_due else num_replayed,
            proposal=orders.proposal(session, run, engine.policy.mode),
        )

    def attach(self, session: Session) -> None:
        """Put its rows into the session, for everything that reads or changes them by the ORM."""
        session.add_all(row for row in (self.run, self.newest_segment, self.status) if row is not None)

    def attach_changed(self, session: Session) -> None:
        """Put the run into the session, if it was changed without."""
        if sa.inspect(self.run).modified:
            session.add(self.run)

    def segment(self, session: Session, number: int) -> Segment | None:
        if self.newest_segment is not None and self.newest_segment.number == number:
            return self.newest_segment
        return session.get(Segment, (self.run.pk, number))

    def follows(self, segment: Segment) -> bool:
        """True if the detection follows this segment."""
        if self.newest_segment is None:
            return not segment.is_beside
        return segment.number == self.newest_segment.number

    def save(self, session: Session, segment: Segment, effects: Sequence[Effect], *, now: float) -> dict[str, Any]:
        """Write what the detection concluded, and the state of its engine, which is returned."""
        state = detection_state.save(session, self.run, self.engine, effects, segment=segment, now=now)
        self.num_unsaved_rows = 0
        if effects:
            self.open_orders = _open_orders(session, self.run)
            self.proposal = orders.proposal(session, self.run, self.engine.policy.mode)
        return state

    def save_later(self, session: Session, segment: Segment, num_rows: int, *, now: float) -> dict[str, Any] | None:
        """The engine has seen `num_rows` stored rows that had no effects: save its state once enough have come.

        Returns the state, if it was saved.
        """
        self.num_unsaved_rows += num_rows
        return self.save(session, segment, [], now=now) if self.num_unsaved_rows >= MAX_UNSAVED_ROWS else None

    def snapshot(
        self,
        session: Session,
        segment: Segment,
        previous_step: int | None,
        step: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the detectors' state for later forks, when a multiple of SNAPSHOT_EVERY steps was passed.

        `state`: the engine's, if it has just been saved.
        """
        if previous_step is None or step // SNAPSHOT_EVERY > previous_step // SNAPSHOT_EVERY:
            detectors = self.engine.detectors_state() if state is None else state["detectors"]
            commands.save_snapshot(session, run=self.run, segment=segment.number, step=step, state=detectors)


def _open_orders(session: Session, run: Run) -> Sequence[Order]:
    """Return the open orders that the trainer carries out, or refuses because its guard has failed."""
    obeys_or_refuses = CAN_ROLL_BACK in run.capabilities or why_unguarded(run.capabilities)
    return queries.orders(session, run=run, open_only=True) if obeys_or_refuses else []


@dataclass(slots=True)
class _Transaction:
    """The runs that a session has locked and not committed yet."""

    session: Session
    locked_ahead: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(key, revision) by id."""
    in_use: dict[int, tuple[int, CachedRun]] = field(default_factory=dict)
    """(revision, cached run) by key."""


class RunCache:
    """The cached runs of one collector, least recently used first. Used by one transaction at a time."""

    def __init__(self) -> None:
        self._cached: OrderedDict[int, tuple[int, CachedRun]] = OrderedDict()  # by key, with its revision
        self._transaction: _Transaction | None = None

    def lock_ahead(self, session: Session, has_reported: Mapping[str, bool], now: float) -> None:
        """Lock these runs with one statement, before `lock` takes each of them.

        `has_reported`: False by id for a run that is locked without a report of its trainer.
        """
        reporting = sorted(run_id for run_id, has in has_reported.items() if has)
        locked = commands.lock_runs(
            session,
            run_ids=sorted(has_reported),
            last_report_at=now,
            reporting=None if len(reporting) == len(has_reported) else reporting,
        )
        self._transaction_of(session).locked_ahead = locked

    def lock(self, session: Session, run_id: str, now: float | None, *, attach: bool = True) -> CachedRun:
        """Lock the run, and return it from the cache or the store. Raises Problem 404 when there is no such run.

        It has reported at `now`; None: it has not. A second report of the run in a transaction locks it again.
        Without `attach`, its rows need not be in the session: that costs more than what a plain report writes.
        """
        transaction = self._transaction_of(session)
        locked = transaction.locked_ahead
        if run_id not in locked:
            locked = commands.lock_runs(session, run_ids=[run_id], last_report_at=now)
        if run_id not in locked:
            raise unknown("run", run_id)
        key, revision = locked.pop(run_id)
        found = transaction.in_use.get(key) or self._cached.pop(key, None)
        cached_revision, cached = found or (None, None)
        if cached is None or cached_revision != revision - 1:
            session.flush()
            cached = CachedRun.load(session, session.get_one(Run, key, populate_existing=True))
        else:
            if attach:
                cached.attach(session)
            elif cached.newest_segment is not None:
                session.add(cached.newest_segment)  # so that nobody reads a second one
            set_committed_value(cached.run, "revision", revision)
        transaction.in_use[key] = (revision, cached)
        return cached

    def _transaction_of(self, session: Session) -> _Transaction:
        """The transaction of the session. One that was rolled back is forgotten, and its runs are read anew."""
        if self._transaction is None or self._transaction.session is not session:
            self._transaction = _Transaction(session)
            sa.event.listen(session, "after_commit", self._keep, once=True)
        return self._transaction

    def _keep(self, session: Session) -> None:
        """Cache the runs of a transaction that has been committed."""
        if self._transaction is None or self._transaction.session is not session:
            return
        self._cached.update(self._transaction.in_use)
        self._transaction = None
        while len(self._cached) > MAX_CACHED_RUNS:
            self._cached.popitem(last=False)
