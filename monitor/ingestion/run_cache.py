"""What a collector has before it when a report comes: the run, its newest segment, its detection, its open orders.

Reading all of that again for every step would cost more than the step. So a collector keeps it between two reports of a
run, and trusts it as long as nobody else has locked the run meanwhile: every lock raises the run's revision.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Order, Run, RunStatus, Segment
from db.steps import rollups
from lossguard.protocol import CAN_ROLL_BACK
from monitor.detection import DetectionEngine, Effect
from monitor.ingestion import detection_state
from monitor.problems import unknown

UNSAVED = 64
"""Rows that the stored state of the detection may be behind: whoever takes the run up next feeds them to it again."""
LOCKED = "locked_runs"
"""In a session's `info`: the runs whose desks can be taken without another question."""
TAKEN = "taken_desks"
"""In a session's `info`: the desks that were taken, by their run, with its revision."""
KEPT = 512
"""Runs whose desks a collector keeps, about 0.1 MB each."""


@dataclass(slots=True)
class CachedRun:
    """Of a run that is locked in the present transaction."""

    run: Run
    newest: Segment | None
    """The segment that the detection follows: late reports of one that was left are stored only."""
    numbers: dict[str, int]
    orders: Sequence[Order]
    watch: DetectionEngine
    pulse: RunStatus
    unsaved: int
    """Rows that the watch has seen and its stored state has not."""

    @classmethod
    def laid_out(cls, session: Session, run: Run) -> "CachedRun":
        """From the store."""
        watch, fed = detection_state.brought_up(session, run)
        return cls(
            run=run,
            newest=queries.newest_segment(session, run=run),
            numbers=rollups.metric_numbers(session, run_pk=run.pk),
            orders=_open_orders(session, run),
            watch=watch,
            pulse=commands.run_status_of(session, run=run, now=run.last_report_at),
            unsaved=fed,
        )

    def segment(self, session: Session, number: int) -> Segment | None:
        if self.newest is not None and self.newest.number == number:
            return self.newest
        return session.get(Segment, (self.run.pk, number))

    def follows(self, segment: Segment) -> bool:
        return self.newest is None or segment.number == self.newest.number

    def refresh(self, session: Session) -> None:
        """Read again what a new segment changes."""
        fresh = CachedRun.laid_out(session, self.run)
        self.newest, self.orders = fresh.newest, fresh.orders
        self.watch, self.unsaved = fresh.watch, fresh.unsaved

    def conclude(
        self, session: Session, segment: Segment, effects: Sequence[Effect], *, rows: int | None, now: float
    ) -> None:
        """Write what the detection concluded; its state too, unless it has seen but these rows, which are stored."""
        self.unsaved += rows or 0
        if effects or rows is None or self.unsaved >= UNSAVED:
            detection_state.put_down(session, self.run, self.watch, effects, segment=segment, now=now)
            self.unsaved = 0
        if effects:
            self.orders = _open_orders(session, self.run)


def _open_orders(session: Session, run: Run) -> Sequence[Order]:
    return queries.orders(session, run=run, open_only=True) if CAN_ROLL_BACK in run.capabilities else []


class RunCache:
    """The desks that a collector keeps, the least used of them cleared first. Used by one thread at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[int, CachedRun]] = OrderedDict()

    def lock(self, session: Session, run_ids: Iterable[str], now: float) -> None:
        """Lock these runs with one question, where the desks of all of them are about to be taken."""
        session.info[LOCKED] = commands.lock(session, run_ids=sorted(set(run_ids)), heard_at=now)

    def take(self, session: Session, run_id: str, now: float) -> CachedRun:
        """Lock the run: its desk, as it was left or laid out anew. Raises Problem 404 when there is no such run."""
        locked = session.info.get(LOCKED, {})
        if run_id not in locked:
            locked = commands.lock(session, run_ids=[run_id], heard_at=now)
        if run_id not in locked:
            raise unknown("run", run_id)
        key, revision = locked.pop(run_id)  # a second report of it locks it again, and gets a new revision
        left_at, desk = self._kept.pop(key, (None, None))
        if desk is None or left_at != revision - 1:
            session.flush()
            desk = CachedRun.laid_out(session, session.get_one(Run, key, populate_existing=True))
        else:
            session.add_all(row for row in (desk.run, desk.newest, desk.pulse) if row is not None)
        if TAKEN not in session.info:
            session.info[TAKEN] = {}
            sa.event.listen(session, "after_commit", self._keep, once=True)
        session.info[TAKEN][key] = (revision, desk)
        return desk

    def _keep(self, session: Session) -> None:
        """What was taken in the transaction that is committed now."""
        self._kept.update(session.info.pop(TAKEN))
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
