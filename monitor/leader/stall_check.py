"""Task of the leader: look for live runs without new steps, and open an incident for each.

A look is one query of bounded cost. Each incident is written in a transaction of its own that locks the lease and then
the run, as ingestion locks it, so that two collectors cannot open the same incident, and neither loses a report. The
incident ends with the run, or when steps come again.
"""

import logging

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands
from db.records import live_runs
from db.records.live_runs import LiveRun
from db.store import leader
from db.store.engine import reading, writing
from db.store.leader import Lease
from lossguard.vocabulary.protocol import NO_HEARTBEAT
from monitor.detection.incidents.throughput_incidents import Sign, Silence
from monitor.detection.throughput.durations import FIRST_SECONDS
from monitor.ingestion.run_state import detection_state
from monitor.leader.background import MayGoOn

log = logging.getLogger(__name__)

_FAILED: set[str] = set()
"""Ids of runs of which the log has said that they could not be looked at."""
MAX_RUNS = 50
"""Runs that become incidents in one look; the others in the next: a lease is to be renewed in between."""
HEARTBEAT_SECONDS = 60.0
"""A process that lives reports more often, also after its collector was away."""


def look(engine: sa.Engine, lease: Lease, may_go_on: MayGoOn = lambda: True) -> list[str]:
    """Return the ids of the runs that were found stalled. Once `may_go_on` is false, the others wait."""
    with reading(engine) as session:
        run_ids = [run.id for run in _without_steps(session, lease, now=lease.now)]
    return [run_id for run_id in run_ids if may_go_on() and _open_if_possible(engine, lease, run_id)]


def _without_steps(session: Session, lease: Lease, *, now: float, run_pk: int | None = None) -> list[LiveRun]:
    found = live_runs.without_steps(
        session, now=now, since=lease.since, default=FIRST_SECONDS, limit=MAX_RUNS, run_pk=run_pk
    )
    return list(found)


def _open_if_possible(engine: sa.Engine, lease: Lease, run_id: str) -> bool:
    """A run of which the store cannot be read does not keep the others from being looked at."""
    try:
        return open_stall(engine, lease, run_id)
    except (sa.exc.OperationalError, sa.exc.TimeoutError):  # the database is unavailable for all of them
        raise
    except Exception:
        if run_id not in _FAILED:
            log.exception("looking whether run %s has stalled failed", run_id)
        _FAILED.add(run_id)
        return False


def open_stall(engine: sa.Engine, lease: Lease, run_id: str) -> bool:
    """Open the incident if the locked run still has no new step. True if it did; never once the lease is lost."""
    with writing(engine) as session:
        if not leader.holds(session, lease):
            return False
        run = commands.lock_run(session, run_id=run_id)
        now = leader.now(session)
        found = [] if run is None else _without_steps(session, lease, now=now, run_pk=run.pk)
        if run is None or not found:
            return False
        status = found[0].RunStatus
        sign = Sign.HEARTBEATS if now - run.last_report_at < HEARTBEAT_SECONDS else Sign.NOTHING
        if NO_HEARTBEAT in run.capabilities:
            sign = Sign.UNKNOWN
        limit = FIRST_SECONDS if status.stall_after is None else status.stall_after
        silence = Silence(now - status.last_step_at, limit, sign)
        detection_state.update(session, run, lambda engine: engine.report_stall(silence), now=now)
    log.warning("run %s has stalled", run_id)
    return True
