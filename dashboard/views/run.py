"""Run: one run's curves and what happened to it, live while it goes on. The run is in the URL: ?run=ID&steps=A-B."""

import time

import streamlit as st

from dashboard import charts, data, figure, tables, words
from dashboard.data import StoreAway
from dashboard.facts import RunFacts
from dashboard.marks import Marks
from dashboard.views import states
from db.models import Incident

LIVE_SECONDS = 1.5
QUIET_SECONDS = 15.0  # a run that is not running can be taken up again: it is looked at now and then
WIDTH = 165  # pixels of a number in the header: two side by side on a phone
CURVES = ["loss", "perplexity", "grad_norm", "log_z", "lr"]


def chosen_run() -> str | None:
    """The run of the URL, or the one that stands on top of the list."""
    if "run" not in st.query_params:
        runs = data.ordered_runs()
        if not runs:
            return None
        st.query_params["run"] = runs[0][0].id
    return st.query_params["run"]


def page(shown_as_running: bool) -> None:
    try:
        run_id = chosen_run()
        known = None if run_id is None else data.facts(run_id)
        if known is None:
            nothing_to_show(run_id)
            return
        if (known.run.state == "running") != shown_as_running:
            st.rerun()  # another pace from here on
        header(known)
        curves(known)
        incidents(known)
        details(known)
    except StoreAway as away:
        st.warning(str(away), icon=":material/cloud_off:")


def nothing_to_show(run_id: str | None) -> None:
    if run_id is None:
        st.info("No runs yet.", icon=":material/info:")
    else:
        st.warning(f"There is no run `{run_id}` in this store.", icon=":material/search_off:")
    st.page_link("views/runs.py", label="All runs", icon=":material/arrow_back:")


def header(known: RunFacts) -> None:
    run, progress = known.run, known.progress
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(words.escaped(words.run_title(run)), width="content", anchor=False)
        states.badge(run.state)
    about = [f"run {run.id}", run.host, ", ".join(map(str, run.devices)), run.git_commit and run.git_commit[:10]]
    st.caption(words.escaped(" / ".join(part for part in about if part)))
    with st.container(horizontal=True):
        st.metric(words.steps_label(progress.total), words.steps(progress.done), width=WIDTH)
        st.metric("Loss", words.number(known.newest.get("loss")), width=WIDTH)
        if run.state == "running":
            st.metric("Time left", words.duration(progress.seconds_left), width=WIDTH)
        st.metric("Time per step", words.seconds(progress.seconds_per_step), width=WIDTH)
        st.metric("Open incidents", sum(each.state != "closed" for each in known.incidents), width=WIDTH)
        st.metric("Interventions", len(known.interventions), width=WIDTH)
        st.metric("Last report", words.ago(time.time() - run.last_report_at), width=WIDTH)
    needs_a_person(known)


def needs_a_person(known: RunFacts) -> None:
    for each in known.interventions:
        if each.state == "proposed":
            sentence = words.intervention_sentence(each, None)
            st.warning(
                f"Intervention {each.number} waits for a person. {sentence}", icon=":material/person_raised_hand:"
            )
        elif each.kind == "hold" and each.state == "applied":
            st.warning("The run is on hold and waits for a person.", icon=":material/front_hand:")


def curves(known: RunFacts) -> None:
    if not known.metrics:
        st.info("No step has been reported yet.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        usual = [name for name in CURVES if name in known.metrics]
        key = f"curves-{known.run.id}-{len(usual)}"  # a usual curve that comes late is shown too
        chosen = st.multiselect("Curves", known.metrics, default=usual, format_func=words.metric_name, key=key)
        discarded = st.toggle("Discarded branches", value=True, key=f"discarded-{known.run.id}")
    if not chosen:
        st.info("Choose a curve.", icon=":material/info:")
        return
    window, key = asked_window(), f"figure-{known.run.id}"
    read = data.curves(known, chosen, window=window, discarded=discarded)
    marks = Marks(
        incidents=known.incidents,
        interventions=known.interventions,
        orders=known.orders,
        events=known.events,
        last_step=known.progress.done - 1,
    )
    drawing = charts.run_figure(read, marks, window=window, revision=known.run.id)
    figure.show(drawing, key=key, on_window=lambda: keep_window(key))


def asked_window() -> tuple[int, int] | None:
    """The steps in view, from the URL: a link or a reload shows the same."""
    first, _, last = st.query_params.get("steps", "").partition("-")
    return (int(first), int(last)) if first.isdigit() and last.isdigit() and int(first) < int(last) else None


def keep_window(key: str) -> None:
    window = figure.window(key)
    if window is None:
        st.query_params.pop("steps", None)
    else:
        st.query_params["steps"] = f"{max(0, window[0])}-{max(1, window[1])}"


def incidents(known: RunFacts) -> None:
    st.subheader("Incidents", anchor=False)
    if not known.incidents:
        st.caption("None so far.")
    for incident in reversed(known.incidents):
        with st.container(border=True, key=f"incident-{incident.number}", gap="small"):
            show_incident(known, incident)


def show_incident(known: RunFacts, incident: Incident) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{incident.number}. {words.incident_kind(incident.kind)}**", width="content")
        states.badge(incident.state)
        if incident.outcome is not None:
            st.badge(incident.outcome, color="gray")
    st.markdown(words.incident_sentence(incident))
    st.markdown(words.listed(incident.details.get("reasons", [])))
    for each in known.interventions:
        if each.incident == incident.number:
            with st.container(horizontal=True, vertical_alignment="center"):
                states.badge(each.state)
                sentence = words.intervention_sentence(each, known.orders.get(each.number))
                st.markdown(f"Intervention {each.number}: {sentence}", width="content")
            st.markdown(words.listed(each.details.get("reasons", [])))


def details(known: RunFacts) -> None:
    titles = ["Interventions", "Skip ledger", "Events", "Segments", "Configuration"]
    makers = [tables.interventions, tables.skip_ledger, tables.events, tables.segments, tables.configuration]
    for tab, title, make in zip(st.tabs(titles), titles, makers, strict=True):
        with tab:
            rows = tables.in_zone(make(known), st.context.timezone or "UTC")
            if rows.empty:
                st.caption("None so far.")
            else:
                st.dataframe(rows, hide_index=True, key=f"table-{title}")


def running_now() -> bool:
    """Whether the chosen run is running; True while the store is away, to look again soon."""
    try:
        run_id = chosen_run()
        known = None if run_id is None else data.facts(run_id)
    except StoreAway:
        return True
    return known is None or known.run.state == "running"


running = running_now()
st.fragment(page, run_every=LIVE_SECONDS if running else QUIET_SECONDS)(running)
