"""Incident: one incident at full resolution, why the policy decided as it did, and what an operator can do.

In the URL: ?run=ID&incident=N&steps=A-B
"""

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go  # type: ignore[import-untyped]
import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached, incident_window, incidents, pending, tables
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import IncidentWindow
from dashboard.data.incidents import timeline
from dashboard.data.store import database_url
from dashboard.figures import component
from dashboard.figures.component import PackedFigure, cached_figure
from dashboard.figures.incident import incident_figure
from dashboard.views import chart, frame, manual_rollback, operate, states, waiting
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from dashboard.views.table import show_table
from db.cli.command_engine import as_typed_here
from db.models import Incident, Intervention
from lossguard.vocabulary import wording
from lossguard.vocabulary.limits import limits_in
from lossguard.vocabulary.metrics import short_name
from lossguard.vocabulary.states import NOT_REPLAYED, IncidentKind


def page(facts: RunFacts) -> None:
    operate.show_success()
    frame.back_to_run(facts)
    incident = selected_incident(facts)
    if incident is None:
        st.header("No incidents", anchor=False)
        st.info("No signal of this run has left its expected band so far.", icon=":material/check:")
        manual_rollback.button(facts, None)
        return
    interventions = incident_window.interventions_of(facts, incident)
    header(facts, incident)
    waiting.show_actions(facts, incident)
    view = chart.view_in_url(figure_key(facts, incident), "steps")
    window = url_state.steps()
    around = cached.incident_window(facts, incident, window)
    metrics(facts, incident, interventions)
    curves(facts, incident, around, window, view)
    left, right = st.columns([2, 3], gap="large")
    with left:
        show_timeline(facts, incident, interventions, around)
    with right:
        reasons(facts, incident, interventions)
        hardware_errors(facts, incident)
        policy(facts)
        skipped_batches(facts, interventions)
    before_and_after(around, incident)
    replay(facts, incident)


def selected_incident(facts: RunFacts) -> Incident | None:
    """The incident of the URL, else the first that waits for a decision, else the newest; with links to others."""
    by_number = {incident.number: incident for incident in reversed(facts.incidents)}
    if not by_number:
        return None
    number = url_state.number("incident")
    if number not in by_number:
        if number is not None:
            st.warning(f"This run has no incident {number:,}. The newest one is shown.", icon=":material/search_off:")
        first = pending.first_incident(facts) if number is None else None
        number = next(iter(by_number)) if first is None else first.number
    if len(by_number) > 1:
        with st.container(horizontal=True, vertical_alignment="center"):
            link_button("Earlier", number - 1, by_number, icon=":material/chevron_left:")
            link_button("Later", number + 1, by_number, icon=":material/chevron_right:")
            st.caption(f"{number} of {len(by_number)}")
    url_state.set_number("incident", number)
    return by_number[number]


def link_button(label: str, number: int, by_number: dict[int, Incident], *, icon: str) -> None:
    if st.button(label, icon=icon, key=f"go-{label}", disabled=number not in by_number, type="tertiary"):
        url_state.set_number("incident", number)
        url_state.set_steps(None)  # what is in view belongs to the incident shown so far
        url_state.set_ranges(chart.ZOOMED, {})
        st.rerun()


def header(facts: RunFacts, incident: Incident) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        title = f"Incident {incident.number}: {formatting.incident_kind(incident.kind)}"
        st.header(title, width="content", anchor=False)
        states.badge(incident.state, pending.standing(facts, incident))
    st.markdown(formatting.incident_sentence(incident))


def metrics(facts: RunFacts, incident: Incident, interventions: list[Intervention]) -> None:
    details, width = incident.details, METRIC_WIDTH_PIXELS
    applied = incident_window.rewound_steps(facts, interventions)
    skipped = sum(end - first for first, end in incident_window.skipped_batches(facts, interventions))
    last = next((each.last_step for each in facts.segments if each.number == incident.segment), None)
    discarded = 0 if last is None else sum(max(0, last + 1 - step) for step in applied)
    peak = formatting.number(details.get("peak_value"))
    lag = formatting.plural(incident.detected_step - incident.onset_step, "step")
    label, what = "Expected", "At detection, ± one robust standard deviation."
    if incident.kind == IncidentKind.REPLAY_MISMATCH:
        label = "Recorded"
        what = "At the step with the largest difference, ± one robust standard deviation of the loss."
    peak_label, expected = f"Peak {short_name(incident.signal)}", formatting.expectation(details)
    if incident.kind == IncidentKind.STALL:
        peak_label, peak = "Without a step", formatting.duration(formatting.stalled_for(incident, time.time()))
        label, what = "Limit", "The longest silence that is usual for this run."
        expected = formatting.duration(details.get("expected"))
    elif incident.kind == IncidentKind.SLOWDOWN:
        peak_label, label = f"Slowest {short_name(incident.signal)}", "Usual"
        if incident.signal == "data_seconds":  # a share of the time
            peak_label, peak = "Waiting for data", formatting.percent(details.get("peak_value"))
            expected = formatting.percent(details.get("expected"))
    with st.container(horizontal=True):
        st.metric("Score", formatting.number(incident.score), width=width, help="The alarm threshold is 1.")
        st.metric(peak_label, peak, width=width)
        st.metric(label, expected, width=width + 20, help=what)
        st.metric("Detected after", lag, width=width, help="Steps from the onset to the alarm.")
        st.metric("Batches skipped", formatting.short_count(skipped), width=width)
        discarded_help = "Trained, then discarded by a rollback."
        st.metric("Steps discarded", formatting.short_count(discarded), width=width, help=discarded_help)


def figure_key(facts: RunFacts, incident: Incident) -> str:
    return f"incident-{facts.run.id}-{incident.number}"


def curves(
    facts: RunFacts,
    incident: Incident,
    around: IncidentWindow,
    window: tuple[int, int] | None,
    view: Mapping[str, Any],
) -> None:
    if not len(around.original):
        st.info("The store has no steps around this incident.", icon=":material/info:")
        return
    key = figure_key(facts, incident)
    component.show(
        draw(facts, incident, around, window),
        key=key,
        label=f"Signals around incident {incident.number}",
        title=formatting.escape_plotly(f"{formatting.run_title(facts.run)}: incident {incident.number}"),
        view=view,
        on_view=lambda: chart.save_view(key, "steps", url_state.set_steps),
    )
    if not around.complete:
        st.caption(
            f"Only steps {around.first:,} to {around.last:,} are shown: this page reads at most "
            f"{incident_window.MAX_WINDOW_STEPS:,} steps at full resolution. The Run page shows all of them."
        )


def draw(facts: RunFacts, incident: Incident, around: IncidentWindow, window: tuple[int, int] | None) -> PackedFigure:
    """`around` holds the steps that were read; `window` is the first and the last step in view, None for all."""
    num_rows = (len(around.original), 0 if around.replacement is None else len(around.replacement))
    data = (facts.run.id, incident.number, facts.marks_stamp, incident_window.detection_key(facts), num_rows)
    key = ("incident", database_url(), *data, around.first, around.last, window)
    return cached_figure(key, lambda: _figure(facts, incident, around, window))


def _figure(facts: RunFacts, incident: Incident, around: IncidentWindow, window: tuple[int, int] | None) -> go.Figure:
    interventions = incident_window.interventions_of(facts, incident)
    return incident_figure(around, incident, interventions, incident_window.rewound_steps(facts, interventions), window)


def show_timeline(
    facts: RunFacts, incident: Incident, interventions: list[Intervention], around: IncidentWindow
) -> None:
    st.subheader("Timeline", anchor=False)
    times = around.step_times
    with st.container(gap="xsmall"):
        for entry in timeline(incident, interventions, facts.orders, times.get):
            when = [] if entry.step is None else [f"step {entry.step:,}"]
            if entry.at is not None:
                when.append(formatting.moment(entry.at, formatting.zone(st.context.timezone)))
            note = f"  \n{formatting.escape_markdown(entry.note)}" if entry.note else ""
            st.markdown(f"**{formatting.escape_markdown(entry.name)}** &nbsp; :gray[{' - '.join(when)}]{note}")


def reasons(facts: RunFacts, incident: Incident, interventions: list[Intervention]) -> None:
    st.subheader("Reasons", anchor=False)
    st.markdown(formatting.bullet_list(incident.details.get("reasons", [])) or "-")
    for each in interventions:
        with st.container(horizontal=True, vertical_alignment="center"):
            states.badge(each.state)
            sentence = formatting.intervention_sentence(each, facts.orders.get(each.number))
            st.markdown(f"Intervention {each.number}, attempt {each.attempt}: {sentence}", width="content")
        st.markdown(formatting.bullet_list(each.details.get("reasons", [])))
    if not interventions:
        st.caption("No intervention.")


def hardware_errors(facts: RunFacts, incident: Incident) -> None:
    if sentences := incidents.errors_before(incident, cached.hardware_errors(facts.run.id, facts.run)):
        st.subheader("Errors of the hardware", anchor=False)
        st.markdown(formatting.bullet_list(sentences))


def policy(facts: RunFacts) -> None:
    with st.expander("Policy of the run"):
        show_table(tables.policy(facts), key="policy")
        if limits := limits_in(facts.run.capabilities).to_text():
            st.caption(formatting.escape_markdown(f"limits of the trainer: {limits.replace(',', ', ')}"))
        st.page_link(
            "views/lab/page.py", label="Try other settings in the detector lab", query_params={"run": facts.run.id}
        )


def skipped_batches(facts: RunFacts, interventions: list[Intervention]) -> None:
    ranges = [
        f"{wording.batches(first, end)}: {formatting.plural(end - first, 'batch', 'batches')}"
        for first, end in incident_window.skipped_batches(facts, interventions)
    ]
    if ranges:
        st.subheader("Batches skipped", anchor=False)
        st.markdown(formatting.bullet_list(ranges))


def before_and_after(around: IncidentWindow, incident: Incident) -> None:
    if len(around.original) and around.bands:
        st.subheader("Before and after", anchor=False)
        show_table(incidents.before_and_after(around, incident), key="before-and-after")


def replay(facts: RunFacts, incident: Incident) -> None:
    if incident.kind in NOT_REPLAYED:
        return
    st.subheader("Replay", anchor=False)
    verdict = incident.verdict
    if not verdict:
        command = f"{as_typed_here('python -m trainer replay')} {facts.run.id}/{incident.number}".replace("`", "")
        st.caption(f"No replay has been run yet. To look for the cause: `{command}`")
        return
    st.markdown(f"**{formatting.escape_markdown(str(verdict.get('sentence', '')))}**")
    st.caption(f"Cause: {formatting.escape_markdown(incidents.cause_of(verdict))}")
    if culprits := incidents.culprits(verdict):
        st.markdown(f"Batches that reproduce it: {formatting.escape_markdown(culprits)}")
    if rows := incidents.arms(verdict):
        show_table(pd.DataFrame(rows), key="replay-arms")


frame.show_run(page)
