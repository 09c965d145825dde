"""The incidents and the interventions of a run: thousands of them are not read at every refresh of a page.

What was read is kept for KEPT_SECONDS, and a later read adds what has changed since.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import streamlit as st
from sqlalchemy.orm import Session

from db import queries
from db.models import Incident, Intervention, Run

KEPT_SECONDS = 60.0
"""Seconds after which all rows are read again: a collector's clock may be wrong by more than OVERLAP_SECONDS."""
OVERLAP_SECONDS = 60.0
"""Overlap of two reads in seconds: clocks differ, and transactions wait."""

Row = TypeVar("Row", Incident, Intervention)


class ChangedRows(Generic[Row]):
    """Rows by number, and when they were read last. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[int, Row] = {}
        self._read_at: float | None = None

    def current(self, read: Callable[[float | None], Sequence[Row]], now: float) -> list[Row]:
        """Return all rows by number. `read` returns those that changed since a time; None: all."""
        with self._lock:
            changed = read(None if self._read_at is None else self._read_at - OVERLAP_SECONDS)
            self._rows = self._rows | {row.number: row for row in changed}
            self._read_at = now
            return [self._rows[number] for number in sorted(self._rows)]


def incidents(session: Session, *, url: str, run: Run) -> list[Incident]:
    """Return the incidents of the store at `url`, which `session` reads."""
    known = _incidents(url, run.pk, run.id, run.started_at)
    return known.current(lambda since: queries.incidents(session, run=run, changed_since=since), time.time())


def interventions(session: Session, *, url: str, run: Run) -> list[Intervention]:
    """Return the interventions of the store at `url`, which `session` reads."""
    known = _interventions(url, run.pk, run.id, run.started_at)
    return known.current(lambda since: queries.interventions(session, run=run, changed_since=since), time.time())


# A key is used again after a run was deleted; the time of its start tells the next run from it.


@st.cache_resource(ttl=KEPT_SECONDS, show_spinner=False, max_entries=64)
def _incidents(url: str, run_pk: int, run_id: str, started_at: float) -> ChangedRows[Incident]:
    return ChangedRows()


@st.cache_resource(ttl=KEPT_SECONDS, show_spinner=False, max_entries=64)
def _interventions(url: str, run_pk: int, run_id: str, started_at: float) -> ChangedRows[Intervention]:
    return ChangedRows()
