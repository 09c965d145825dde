"""Incident: one episode of trouble at full resolution, why it was treated as it was, and what a person can do.

In the URL: ?run=ID&incident=N&steps=A-B
"""

import streamlit as st

from dashboard import clock, formatting, url_state
from dashboard.data import before_after, incident_window
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import IncidentWindow
from dashboard.data.timeline import TimelineEntry, timeline
from dashboard.figures import component
from dashboard.views import frame, operate, states
from dashboard.views.incident import actions, figure, verdict
from db.models import Incident, Intervention
from lossguard.metrics import short_name
from monitor.detection.interventions import run_policy

WIDTH = 165  # pixels of a number in the header: two side by side on a phone


def page(facts: RunFacts) -> None:
    operate.tell()
    label = formatting.escape_markdown(formatting.run_title(facts.run))
    st.page_link("views/run/page.py", label=label, icon=":material/arrow_back:", query_params={"run": facts.run.id})
    incident = chosen(facts)
    if incident is None:
        st.header("No incidents", anchor=False)
        st.info("Nothing has left its band in this run so far.", icon=":material/check:")
        actions.by_hand(facts, None)
        return
    deeds = incident_window.interventions_of(facts, incident)
    header(incident)
    actions.show(facts, incident)
    window = url_state.steps()
    seen = incident_window.read_incident_window(facts, incident, window)
    numbers(facts, incident, deeds)
    curves(facts, incident, seen, window)
    left, right = st.columns([2, 3], gap="large")
    with left:
        course(facts, incident, deeds, seen)
    with right:
        decision(facts, incident, deeds)
        batches(facts, deeds)
    before_and_after(seen, incident)
    verdict.show(facts, incident)


def chosen(facts: RunFacts) -> Incident | None:
    """The incident of the URL, else the newest; with a box to choose another one where there are several."""
    numbers = {incident.number: incident for incident in reversed(facts.incidents)}
    if not numbers:
        return None
    named = url_state.incident()
    if named not in numbers:
        if named is not None:
            st.warning(f"This run has no incident {named:,}; here is the newest.", icon=":material/search_off:")
        named = next(iter(numbers))
    with st.container(horizontal=True, vertical_alignment="center"):
        for number, label, icon in ((named - 1, "Earlier", "chevron_left"), (named + 1, "Later", "chevron_right")):
            if len(numbers) > 1 and st.button(
                label, icon=f":material/{icon}:", key=f"go-{label}", disabled=number not in numbers, type="tertiary"
            ):
                url_state.choose_incident(number)
                url_state.choose_steps(None)  # those in view were of the one that is left
                st.rerun()
        if len(numbers) > 1:
            st.caption(f"{named} of {len(numbers)}")
    url_state.choose_incident(named)
    return numbers[named]


def header(incident: Incident) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        title = f"Incident {incident.number}: {formatting.incident_kind(incident.kind)}"
        st.header(title, width="content", anchor=False)
        states.badge(incident.state)
        if incident.outcome is not None and incident.outcome != incident.state:
            st.badge(incident.outcome, color="gray")
    st.markdown(formatting.incident_sentence(incident))


def numbers(facts: RunFacts, incident: Incident, deeds: list[Intervention]) -> None:
    details = incident.details
    done = [(each, went) for each in deeds if (went := incident_window.rewound_step(facts, each)) is not None]
    skipped = sum((each.skip_to or 0) - (each.skip_from or 0) for each, _ in done)
    lost = sum(max(0, _left(facts, each) - went) for each, went in done)
    expected = f"{formatting.number(details.get('expected'))} ± {formatting.two_digits(details.get('scale'))}"
    with st.container(horizontal=True):
        st.metric("Score", formatting.number(incident.score), width=WIDTH, help="1 is the alarm threshold.")
        st.metric(f"Peak {short_name(incident.signal)}", formatting.number(details.get("peak_value")), width=WIDTH)
        st.metric("Expected", expected, width=WIDTH + 20, help="At detection, with one robust standard deviation.")
        lag = incident.detected_step - incident.onset_step
        st.metric("Detected after", formatting.plural(lag, "step"), width=WIDTH, help="Steps since the first signal.")
        st.metric("Batches skipped", formatting.count(skipped), width=WIDTH)
        st.metric("Steps given up", formatting.count(lost), width=WIDTH, help="Trained, then left by the rollback.")


def _left(facts: RunFacts, each: Intervention) -> int:
    """The first step that was not done any more before the rollback."""
    left = {incident.number: incident.segment for incident in facts.incidents}.get(each.incident or 0)
    last = next((one.last_step for one in facts.segments if one.number == left), None)
    return 0 if last is None else last + 1


def curves(facts: RunFacts, incident: Incident, seen: IncidentWindow, window: tuple[int, int] | None) -> None:
    if not len(seen.original):
        st.info("The store has no steps here any more.", icon=":material/info:")
        return
    key = f"incident-{facts.run.id}-{incident.number}"
    drawing = figure.draw(facts, incident, seen, window)
    component.show(
        drawing,
        key=key,
        label=f"Signals around incident {incident.number}",
        on_window=lambda: url_state.choose_steps(component.window(key)),
    )
    if not seen.complete:
        part = f"Steps {seen.first:,} to {seen.last:,} are shown, each of them; drag in the Run page for the rest."
        st.caption(f"{part} At most {incident_window.MAX_WINDOW_STEPS:,} are read at full resolution.")


def course(facts: RunFacts, incident: Incident, deeds: list[Intervention], seen: IncidentWindow) -> None:
    st.subheader("Timeline", anchor=False)
    times = (
        {}
        if seen.original.times is None
        else dict(zip(seen.original.steps.tolist(), seen.original.times.tolist(), strict=True))
    )
    with st.container(gap="xsmall"):
        for moment in timeline(incident, deeds, facts.orders, times.get):
            st.markdown(_line(moment))


def _line(moment: TimelineEntry) -> str:
    where = [] if moment.step is None else [f"step {moment.step:,}"]
    if moment.at is not None:
        where.append(clock.moment(moment.at, clock.zone(st.context.timezone)))
    note = f"  \n{formatting.escape_markdown(moment.note)}" if moment.note else ""
    return f"**{formatting.escape_markdown(moment.name)}** &nbsp; :gray[{' - '.join(where)}]{note}"


def decision(facts: RunFacts, incident: Incident, deeds: list[Intervention]) -> None:
    st.subheader("Why", anchor=False)
    st.markdown(formatting.bullet_list(incident.details.get("reasons", [])) or "-")
    for each in deeds:
        with st.container(horizontal=True, vertical_alignment="center"):
            states.badge(each.state)
            sentence = formatting.intervention_sentence(each, facts.orders.get(each.number))
            st.markdown(f"Intervention {each.number}, attempt {each.attempt}: {sentence}", width="content")
        st.markdown(formatting.bullet_list(each.details.get("reasons", [])))
    if not deeds:
        st.caption("Nothing was done about it.")
    with st.expander("The policy that decides"):
        told = run_policy.to_rule(run_policy.policy_of(facts.run.policy), run_policy.settings_of(facts.run.policy))
        detection = told.pop(run_policy.DETECTION, {})
        st.caption(formatting.escape_markdown(formatting.details(told | detection)))
        st.page_link(
            "views/lab/page.py", label="Try another one in the detector lab", query_params={"run": facts.run.id}
        )


def batches(facts: RunFacts, deeds: list[Intervention]) -> None:
    ranges = [(each.skip_from, each.skip_to) for each in deeds if incident_window.rewound_step(facts, each) is not None]
    if ranges:
        st.subheader("Batches skipped", anchor=False)
        told = [f"{formatting.batches(first, end)}: {(end or 0) - (first or 0):,} batches" for first, end in ranges]
        st.markdown(formatting.bullet_list(told))


def before_and_after(seen: IncidentWindow, incident: Incident) -> None:
    if len(seen.original) and seen.bands:
        st.subheader("Before and after", anchor=False)
        st.dataframe(before_after.before_and_after(seen, incident), hide_index=True, key="before-and-after")


frame.follow_run(page)
