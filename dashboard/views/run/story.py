"""Story of the run in a sentence, and a table of its incidents.

In the URL: ?incident=N shows the details of incident N.
"""

import time

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.report import summary
from dashboard.views.run import incidents


def show(facts: RunFacts) -> None:
    """Show the incidents; a run without any has "There were no incidents." alone."""
    st.markdown(formatting.escape_markdown(" ".join(sentences(facts, time.time()))))
    if facts.incidents:
        incidents.show(facts)


def sentences(facts: RunFacts, now: float) -> list[str]:
    """Return the report's sentences about incidents and what they cost."""
    about = summary.incident_sentences(facts)
    rewinds = cached.rewinds(facts)
    return [*about, summary.lost_sentence(facts, rewinds, now)] if rewinds or facts.incidents else about
