"""The story of a run in a sentence, a compact table of its incidents, and the details of the one that the viewer chose.

In the URL: ?incident=N shows the details of incident N.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached, pending
from dashboard.data.facts import RunFacts
from dashboard.figures.marks import MAX_INCIDENTS
from dashboard.report import summary
from dashboard.views import states, waiting
from db.goodput.rollback_costs import Rewind, total_seconds
from db.models import Incident
from lossguard.vocabulary.states import IncidentState

HERE = Path(__file__).parent
PAGE_SIZE = 20
MORE = 200
"""Number of rows that one press of "Show more" adds."""
NUM_SHOWN = "incidents_shown"
"""Key in the session: number of rows of the table."""
HEADER_PIXELS, ROW_PIXELS, MAX_VISIBLE_ROWS = 30, 29, 6
"""The table scrolls when it has more rows, so that the curves stay in view."""

_component = st.components.v2.component(
    "lossguard_incidents",
    html='<div class="incidents"></div>',
    css=(HERE / "incident_table.css").read_text(encoding="utf-8"),
    js=(HERE / "incident_table.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """A line of the table: text as it is, never markup."""

    number: int
    kind: str
    onset: str
    cost: str
    outcome: str
    color: str
    """Colour of the outcome, as on its badge."""
    url: str
    """The incident's page."""


def show_table(facts: RunFacts) -> None:
    """The table, and below it the incident that the URL names."""
    num_shown = st.session_state.setdefault(NUM_SHOWN, PAGE_SIZE)
    key, chosen = f"incidents-{facts.run.id}", url_state.number("incident")
    shown = rows(facts, cached.rewinds(facts), num_shown)
    height = HEADER_PIXELS + ROW_PIXELS * min(len(shown), MAX_VISIBLE_ROWS)
    with st.container(height=height, border=False, key="incident-table"):
        data = {"rows": [asdict(row) for row in shown], "chosen": chosen}
        _component(data=data, key=key, on_chosen_change=lambda: choose(st.session_state[key].get("chosen")))
    num_incidents = len(facts.incidents)
    if num_incidents > MAX_INCIDENTS:
        st.caption(
            f"The curves mark at most {MAX_INCIDENTS} incidents in view, open ones and the newest; zoom in for others."
        )
    if num_incidents > num_shown and st.button(
        f"Show more ({num_shown:,} of {formatting.plural(num_incidents, 'incident')})", type="tertiary"
    ):
        st.session_state[NUM_SHOWN] = num_shown + MORE
        st.rerun(scope="fragment")
    if (incident := next((each for each in facts.incidents if each.number == chosen), None)) is not None:
        with st.container(border=True, key=f"incident-{incident.number}", gap="small"):
            show_details(facts, incident)


def choose(number: Any) -> None:
    """Write the choice to the URL; 0 for none."""
    if number:
        url_state.set_number("incident", int(number))
    else:
        st.query_params.pop("incident", None)


def rows(facts: RunFacts, rewinds: Sequence[Rewind], max_rows: int) -> list[IncidentRow]:
    """Open ones first, then the newest."""
    found = sorted(facts.incidents, key=lambda each: (each.state == IncidentState.CLOSED, -each.number))
    costs = costs_by_incident(rewinds)
    return [row(facts, incident, costs.get(incident.number, "-")) for incident in found[:max_rows]]


def row(facts: RunFacts, incident: Incident, cost: str) -> IncidentRow:
    return IncidentRow(
        number=incident.number,
        kind=formatting.visible(formatting.incident_kind(incident.kind)),
        onset=formatting.count(incident.onset_step),
        cost=cost,
        outcome=pending.standing(facts, incident),
        color=states.BADGES.get(incident.state, ("gray", ""))[0],
        url=url_state.incident_url(facts.run.id, incident.number),
    )


def costs_by_incident(rewinds: Sequence[Rewind]) -> Mapping[int, str]:
    """Steps and time that the rollbacks of each incident cost: "145 steps, 5 s"."""
    by_incident: dict[int, list[Rewind]] = {}
    for rewind in rewinds:
        if rewind.incident is not None:
            by_incident.setdefault(rewind.incident, []).append(rewind)
    costs = {}
    for number, own in by_incident.items():
        steps, seconds = formatting.plural(sum(each.steps for each in own), "step"), total_seconds(own)
        costs[number] = steps if seconds is None else f"{steps}, {formatting.duration(seconds)}"
    return costs


def show_details(facts: RunFacts, incident: Incident) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        kind = formatting.escape_markdown(formatting.incident_kind(incident.kind))
        st.markdown(f"**{incident.number}. {kind}**", width="content")
        states.badge(incident.state, pending.standing(facts, incident))
        waiting.link(facts, incident.number)
    st.markdown(formatting.incident_sentence(incident))
    st.markdown(formatting.bullet_list(incident.details.get("reasons", [])))
    for each in facts.interventions:
        if each.incident == incident.number:
            with st.container(horizontal=True, vertical_alignment="center"):
                states.badge(each.state)
                sentence = formatting.intervention_sentence(each, facts.orders.get(each.number))
                st.markdown(f"Intervention {each.number}: {sentence}", width="content")
            st.markdown(formatting.bullet_list(each.details.get("reasons", [])))


def show(facts: RunFacts) -> None:
    """Show the incidents; a run without any has "There were no incidents." alone."""
    st.markdown(formatting.escape_markdown(" ".join(sentences(facts, time.time()))))
    if facts.incidents:
        show_table(facts)


def sentences(facts: RunFacts, now: float) -> list[str]:
    """Return the report's sentences about incidents and what they cost."""
    about = summary.incident_sentences(facts)
    rewinds = cached.rewinds(facts)
    return [*about, summary.lost_sentence(facts, rewinds, now)] if rewinds or facts.incidents else about
