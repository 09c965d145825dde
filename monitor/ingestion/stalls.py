"""A run without new steps becomes an incident, and the incident ends with the run; steps that come again end it too.

The caller owns the transaction.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session

from db import commands
from db.models import Run, Segment
from db.records import live_runs
from db.records.live_runs import LiveRun
from lossguard.vocabulary.protocol import NO_HEARTBEAT
from monitor.detection import DetectionEngine, Effect
from monitor.detection.incidents.stall import Sign, Silence
from monitor.detection.throughput.row_gaps import FIRST_SECONDS
from monitor.ingestion import detection_state

HEARTBEAT_SECONDS = 60.0
"""A process that lives reports more often, also after its collector was away."""


def limit(engine: DetectionEngine, gaps: Sequence[float], *, has_order: bool) -> float | None:
    """Return the time that the next steps may take; None while an order is carried out."""
    return None if has_order else engine.throughput.limit(gaps)


def open_stall(session: Session, run_id: str, *, now: float, since: float) -> bool:
    """Lock the run and open the incident, if it still has no new step then. Returns True if it did.

    `since`: from when on reports were taken. `now`: by the clock of the database.
    """
    run = commands.lock_run(session, run_id=run_id)
    if run is None:
        return False
    found = live_runs.without_steps(session, now=now, since=since, default=FIRST_SECONDS, limit=1, run_pk=run.pk)
    if not found:
        return False
    silence = _silence(run, found[0], now)
    detection_state.update(session, run, lambda engine: engine.report_stall(silence), now=now)
    return True


def _silence(run: Run, live: LiveRun, now: float) -> Silence:
    sign = Sign.HEARTBEATS if now - run.last_report_at < HEARTBEAT_SECONDS else Sign.NOTHING
    if NO_HEARTBEAT in run.capabilities:
        sign = Sign.UNKNOWN
    limit = FIRST_SECONDS if live.RunStatus.stall_after is None else live.RunStatus.stall_after
    return Silence(now - live.RunStatus.last_step_at, limit, sign)


def end(session: Session, run: Run, *, now: float) -> None:
    """The run, which is locked, has ended: no step is missing any more, and none is slow."""
    if live_runs.is_stalled_or_slow(session, run_pk=run.pk):
        detection_state.update(session, run, partial(_end, run), now=now)


def end_cached(session: Session, run: Run, engine: DetectionEngine, segment: Segment | None, *, now: float) -> None:
    """End the stall of a run from the cache; its detection follows `segment`."""
    if live_runs.is_stalled_or_slow(session, run_pk=run.pk):
        detection_state.save(session, run, engine, _end(run, engine), segment=segment, now=now)


def _end(run: Run, engine: DetectionEngine) -> list[Effect]:
    return engine.end_run(f"The run has ended without further steps: {run.state}.")
