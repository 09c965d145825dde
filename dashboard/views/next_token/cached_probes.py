"""Reads the probes of a run; read again only when there is a new one."""

import streamlit as st

from dashboard.data.facts import RunFacts
from dashboard.data.store import cached_briefly, database_url, open_store
from db import queries
from db.models import Run
from db.queries import StoredProbe


def prompts(facts: RunFacts) -> list[str]:
    """As they first came."""
    return _prompts(database_url(), facts.run.id, _count(database_url(), facts.run.id, facts.run), facts.run)


def probes(facts: RunFacts, prompt: str) -> list[StoredProbe]:
    """Those of one prompt, by step."""
    count = _count(database_url(), facts.run.id, facts.run)
    forks = tuple(one.fork_step for one in facts.segments)  # they decide what is on the live line
    return _probes(database_url(), facts.run.id, count, forks, prompt, facts.run)


@cached_briefly
def _count(url: str, run_id: str, _run: Run) -> int:
    with open_store(url) as session:
        return queries.num_probes(session, run=_run)


@st.cache_resource(show_spinner=False, max_entries=64)
def _prompts(url: str, run_id: str, count: int, _run: Run) -> list[str]:
    with open_store(url) as session:
        return queries.prompts(session, run=_run)


@st.cache_resource(show_spinner=False, max_entries=32)
def _probes(
    url: str, run_id: str, count: int, forks: tuple[int | None, ...], prompt: str, _run: Run
) -> list[StoredProbe]:
    with open_store(url) as session:
        return queries.probes(session, run=_run, prompt=prompt)
