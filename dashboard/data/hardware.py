"""The hardware of a run as the pages read it."""

from collections.abc import Sequence

import streamlit as st

from dashboard.data.facts import RunFacts
from dashboard.data.store import cached_briefly, database_url, open_store
from db import queries
from db.models import Incident
from db.records import hardware
from db.records.hardware import HardwareSample
from lossguard.vocabulary.hardware import describe_errors
from lossguard.vocabulary.wording import plural

CACHE_SECONDS = 15.0
"""Between two samples. Reading all that a run keeps takes a third of a second."""
LOOK_BACK_STEPS = 1000
"""Steps before the onset of an incident in which an error of the hardware is worth a look."""


def samples(facts: RunFacts) -> Sequence[HardwareSample]:
    """Return all samples of a run, oldest first."""
    return _samples(database_url(), facts.run.id)


def errors(facts: RunFacts) -> Sequence[HardwareSample]:
    """Return the samples that count an error."""
    return _errors(database_url(), facts.run.id)


@st.cache_resource(ttl=CACHE_SECONDS, show_spinner=False, max_entries=8)
def _samples(url: str, run_id: str) -> Sequence[HardwareSample]:
    return _read(url, run_id, errors_only=False)


@cached_briefly
def _errors(url: str, run_id: str) -> Sequence[HardwareSample]:
    return _read(url, run_id, errors_only=True)


def _read(url: str, run_id: str, *, errors_only: bool) -> Sequence[HardwareSample]:
    with open_store(url) as session:
        run = queries.run_named(session, run_id=run_id)
        return [] if run is None else hardware.samples(session, run=run, errors_only=errors_only)


def errors_before(incident: Incident, found: Sequence[HardwareSample]) -> list[str]:
    """A sentence for each error from LOOK_BACK_STEPS before the onset to the detection, oldest first.

    A sample comes up to its interval after the error; one that was taken after the incident was stored belongs to steps
    that were computed again.
    """
    sentences = []
    for sample in found:
        if not sample.num_errors or sample.step is None or sample.time > incident.opened_at:
            continue
        if incident.onset_step - LOOK_BACK_STEPS <= sample.step <= incident.detected_step:
            steps = incident.onset_step - sample.step
            when = f"{plural(abs(steps), 'step')} {'before' if steps >= 0 else 'after'} the onset"
            sentences.append(f"{describe_errors(sample.readings)} of {sample.device} on {sample.host}, {when}.")
    return sentences
