"""Facts about a proposed intervention for the person who approves it."""

import time

from dashboard.data.facts import RunFacts
from dashboard.data.store import cached_briefly, database_url, open_store
from db import queries
from db.models import Intervention
from db.records import preflights
from monitor.detection.interventions.preflight import Known, Preflight, preflight


def read(facts: RunFacts, each: Intervention) -> Preflight:
    """Read the facts as of now. Raises StoreUnavailable."""
    return _read(database_url(), facts.run.id, each.number, each)


@cached_briefly
def _read(url: str, run_id: str, number: int, _each: Intervention) -> Preflight:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        assert run is not None  # its facts were read
        return preflight(Known(**preflights.known(session, run=run, intervention=_each, now=time.time())))
