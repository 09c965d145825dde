"""Use of the running runs' time, kept between scrapes: each scrape reads a few runs anew."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.goodput import reading
from db.goodput.accounting import Breakdown
from db.models import Run

MAX_AGE_SECONDS = 30.0
"""Age after which a breakdown is read again."""
MAX_READS = 8
"""Maximum number of runs that one scrape reads, those with the oldest breakdowns first: each takes 30 to 80 ms."""


class RunTimeCache:
    """The newest breakdown of each run that is shown."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[float, Breakdown]] = {}

    def read(self, session: Session, shown: Sequence[int], now: float) -> Mapping[int, tuple[float, Breakdown]]:
        """Key of a run -> when its breakdown was read, and the breakdown; without the runs that were never read.

        `now` and the times are unix seconds.
        """
        before = self._read  # replaced as a whole: scrapes may overlap
        known = {pk: before[pk] for pk in shown if pk in before}
        ages = {pk: now - known[pk][0] if pk in known else float("inf") for pk in shown}
        due = sorted((pk for pk in shown if ages[pk] >= MAX_AGE_SECONDS), key=lambda pk: -ages[pk])
        if due:
            runs = session.scalars(sa.select(Run).where(Run.pk.in_(due[:MAX_READS]))).all()
            known |= {pk: (now, found) for pk, found in reading.breakdowns(session, runs=runs, now=now).items()}
        self._read = known
        return known
