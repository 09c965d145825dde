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
from db.models import Incident

WIDTH = 165  # pixels of a number in the header: two side by side on a phone


def page(known: RunFacts) -> None:
    header(known)
    curves.show(known)


def below(known: RunFacts) -> None:
    incidents(known)
    costs.show(known)
    details(known)


def header(known: RunFacts) -> None:
    run, progress = known.run, known.progress
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(formatting.escaped(formatting.run_title(run)), width="content", anchor=False)
        states.run_badge(run)
        st.page_link(
            "views/compare/page.py", label="Compare", icon=":material/compare_arrows:", query_params={"runs": run.id}
        )
    about = [f"run {run.id}", run.host, formatting.hardware(run), run.git_commit and run.git_commit[:10]]
    st.caption(formatting.escaped(" / ".join(part for part in about if part)))
    with st.container(horizontal=True):
        st.metric(formatting.steps_label(progress.total), formatting.steps(progress.done), width=WIDTH)
        st.metric("Loss", formatting.number(known.newest.get("loss")), width=WIDTH)
        if run.state == "running" and not is_silent(run, time.time()):
            st.metric("Time left", formatting.duration(progress.seconds_left), width=WIDTH)
        st.metric("Time per step", formatting.seconds(progress.seconds_per_step), width=WIDTH)
        st.metric("Open incidents", sum(each.state != "closed" for each in known.incidents), width=WIDTH)
        st.metric("Interventions", len(known.interventions), width=WIDTH)
        st.metric("Last report", formatting.ago(time.time() - run.last_report_at), width=WIDTH)
    needs_a_person(known)


def needs_a_person(known: RunFacts) -> None:
    for each in known.interventions:
        if each.state == "proposed":
            sentence = formatting.intervention_sentence(each, None)
            st.warning(
                f"Intervention {each.number} waits for a person. {sentence}", icon=":material/person_raised_hand:"
            )
        elif each.kind == "hold" and each.state == "applied":
            st.warning("The run is on hold and waits for a person.", icon=":material/front_hand:")


def incidents(known: RunFacts) -> None:
    st.subheader("Incidents", anchor=False)
    if not known.incidents:
        st.caption("None so far.")
    for incident in reversed(known.incidents):
        with st.container(border=True, key=f"incident-{incident.number}", gap="small"):
            show_incident(known, incident)


def show_incident(known: RunFacts, incident: Incident) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "views/incident/page.py",
            label=f"**{incident.number}. {formatting.incident_kind(incident.kind)}**",
            query_params={"run": known.run.id, "incident": str(incident.number)},
        )
        states.badge(incident.state)
        if incident.outcome is not None:
            st.badge(incident.outcome, color="gray")
    st.markdown(formatting.incident_sentence(incident))
    st.markdown(formatting.listed(incident.details.get("reasons", [])))
    for each in known.interventions:
        if each.incident == incident.number:
            with st.container(horizontal=True, vertical_alignment="center"):
                states.badge(each.state)
                sentence = formatting.intervention_sentence(each, known.orders.get(each.number))
                st.markdown(f"Intervention {each.number}: {sentence}", width="content")
            st.markdown(formatting.listed(each.details.get("reasons", [])))


def details(known: RunFacts) -> None:
    zone = clock.zone(st.context.timezone)
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "Interventions": lambda: tables.interventions(known),
        "Skip ledger": lambda: tables.skip_ledger(known),
        "Events": lambda: tables.events(known),
        "Segments": lambda: tables.segments(known),
        "Configuration": lambda: tables.configuration(known, zone),
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
