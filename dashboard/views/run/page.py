"""Run: one run's curves and what happened to it, live while it goes on.

In the URL: ?run=ID&steps=A-B&curves=..&x=..&smooth=..&discarded=..&details=..
"""

import time
from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard import clock, formatting
from dashboard.data import tables
from dashboard.data.facts import RunFacts
from dashboard.data.progress import is_silent
from dashboard.views import frame, states
from dashboard.views.run import costs, curves
from db.interventions import is_holding, is_proposed
from db.models import Incident

WIDTH = 165  # pixels of a number in the header: two side by side on a phone


def page(facts: RunFacts) -> None:
    header(facts)
    curves.show(facts)


def below(facts: RunFacts) -> None:
    incidents(facts)
    costs.show(facts)
    details(facts)


def header(facts: RunFacts) -> None:
    run, progress = facts.run, facts.progress
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(formatting.escape_markdown(formatting.run_title(run)), width="content", anchor=False)
        states.run_badge(run)
        st.page_link(
            "views/compare/page.py", label="Compare", icon=":material/compare_arrows:", query_params={"runs": run.id}
        )
    about = [f"run {run.id}", run.host, formatting.hardware(run), run.git_commit and run.git_commit[:10]]
    st.caption(formatting.escape_markdown(" / ".join(part for part in about if part)))
    with st.container(horizontal=True):
        st.metric(formatting.steps_label(progress.total), formatting.count(progress.done), width=WIDTH)
        st.metric("Loss", formatting.number(facts.newest.get("loss")), width=WIDTH)
        if run.state == "running" and not is_silent(run, time.time()):
            st.metric("Time left", formatting.duration(progress.seconds_left), width=WIDTH)
        st.metric("Time per step", formatting.seconds(progress.seconds_per_step), width=WIDTH)
        st.metric("Open incidents", sum(each.state != "closed" for each in facts.incidents), width=WIDTH)
        st.metric("Interventions", len(facts.interventions), width=WIDTH)
        st.metric("Last report", formatting.ago(time.time() - run.last_report_at), width=WIDTH)
    needs_a_person(facts)


def needs_a_person(facts: RunFacts) -> None:
    for each in facts.interventions:
        if is_proposed(each):
            sentence = formatting.intervention_sentence(each, None)
            st.warning(
                f"Intervention {each.number} waits for a person. {sentence}", icon=":material/person_raised_hand:"
            )
        elif is_holding(each):
            st.warning("The run is on hold and waits for a person.", icon=":material/front_hand:")


def incidents(facts: RunFacts) -> None:
    st.subheader("Incidents", anchor=False)
    if not facts.incidents:
        st.caption("None so far.")
    for incident in reversed(facts.incidents):
        with st.container(border=True, key=f"incident-{incident.number}", gap="small"):
            show_incident(facts, incident)


def show_incident(facts: RunFacts, incident: Incident) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "views/incident/page.py",
            label=f"**{incident.number}. {formatting.incident_kind(incident.kind)}**",
            query_params={"run": facts.run.id, "incident": str(incident.number)},
        )
        states.badge(incident.state)
        if incident.outcome is not None:
            st.badge(incident.outcome, color="gray")
    st.markdown(formatting.incident_sentence(incident))
    st.markdown(formatting.bullet_list(incident.details.get("reasons", [])))
    for each in facts.interventions:
        if each.incident == incident.number:
            with st.container(horizontal=True, vertical_alignment="center"):
                states.badge(each.state)
                sentence = formatting.intervention_sentence(each, facts.orders.get(each.number))
                st.markdown(f"Intervention {each.number}: {sentence}", width="content")
            st.markdown(formatting.bullet_list(each.details.get("reasons", [])))


def details(facts: RunFacts) -> None:
    zone = clock.zone(st.context.timezone)
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "Interventions": lambda: tables.interventions(facts),
        "Skip ledger": lambda: tables.skip_ledger(facts),
        "Events": lambda: tables.events(facts),
        "Segments": lambda: tables.segments(facts),
        "Configuration": lambda: tables.configuration(facts, zone),
    }
    # A table is made when it is looked at.
    tabs = st.tabs(list(makers), key="details", bind="query-params", on_change="rerun")
    for tab, (title, make) in zip(tabs, makers.items(), strict=True):
        if tab.open:
            with tab:
                table(title, tables.in_zone(make(), zone))


def table(title: str, rows: pd.DataFrame) -> None:
    if rows.empty:
        st.caption("None so far.")
    else:
        st.dataframe(rows, hide_index=True, key=f"table-{title}")


frame.follow_run(page, below=below)
