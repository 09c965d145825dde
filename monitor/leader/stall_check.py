"""Task of the leader: look for live runs without new steps, and open an incident for each.

A look is one query of bounded cost. Each incident is written in a transaction of its own that locks the lease and then
the run, as ingestion locks it, so that two collectors cannot open the same incident, and neither loses a report.
"""

import logging

import sqlalchemy as sa

from db.records import live_runs
from db.store import leader
from db.store.engine import reading, writing
from db.store.leader import Lease
from monitor.detection.throughput.row_gaps import FIRST_SECONDS
from monitor.ingestion import stalls
from monitor.leader.background import MayGoOn

log = logging.getLogger(__name__)

_FAILED: set[str] = set()
"""Ids of runs of which the log has said that they could not be looked at."""
MAX_RUNS = 50
"""Runs that become incidents in one look; the others in the next: a lease is to be renewed in between."""


def look(engine: sa.Engine, lease: Lease, may_go_on: MayGoOn = lambda: True) -> list[str]:
    """Return the ids of the runs that were found stalled. Once `may_go_on` is false, the others wait."""
    with reading(engine) as session:
        found = live_runs.without_steps(
            session, now=lease.now, since=lease.since, default=FIRST_SECONDS, limit=MAX_RUNS
        )
        run_ids = [run.id for run in found]
    return [run_id for run_id in run_ids if may_go_on() and _open_if_possible(engine, lease, run_id)]


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
    """True if the run was found stalled; never once the lease is lost."""
    with writing(engine) as session:
        if not leader.holds(session, lease):
            return False
        if not stalls.open_stall(session, run_id, now=leader.now(session), since=lease.since):
            return False
    log.warning("run %s has stalled", run_id)
    return True
