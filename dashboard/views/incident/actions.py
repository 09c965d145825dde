"""What a person can do about an incident: approve, reject, release, roll back by hand."""

import time

import streamlit as st

from dashboard import formatting
from dashboard.data import incident_window
from dashboard.data.facts import RunFacts
from dashboard.data.progress import is_silent
from dashboard.operator_actions import Deed
from dashboard.views import operate
from db.interventions import is_holding, is_proposed
from db.models import Incident, Intervention
from lossguard.protocol import CAN_ROLL_BACK
from monitor.detection.interventions import run_policy


def show(facts: RunFacts, incident: Incident) -> None:
    """What waits for a person, and the buttons."""
    waiting = [each for each in facts.interventions if is_proposed(each)]
    held = any(map(is_holding, facts.interventions))
    for each in waiting:
        sentence = formatting.intervention_sentence(each, None)
        st.warning(f"Intervention {each.number} waits for a person. {sentence}", icon=":material/person_raised_hand:")
    if held:
        st.warning("The run is on hold and waits for a person.", icon=":material/front_hand:")
    with st.container(horizontal=True):
        for each in waiting:
            operate.button("Approve", approval(each), key="approve", icon=":material/check:", primary=True)
            operate.button("Reject", rejection(each), key="reject", icon=":material/close:")
        if held:
            operate.button("Release", release(facts), key="release", icon=":material/play_arrow:", primary=True)
        by_hand(facts, incident)


def approval(each: Intervention) -> Deed:
    question = f"Approve intervention {each.number}? {formatting.intervention_sentence(each, None)}"
    done = f"Approved: intervention {each.number} is ordered."
    return Deed("Approve", question, done, "POST", f"/interventions/{each.id}/approve")


def rejection(each: Intervention) -> Deed:
    question = f"Reject intervention {each.number}? The run goes on as it is; nothing more is proposed for this one."
    done = f"Rejected: intervention {each.number}."
    return Deed("Reject", question, done, "POST", f"/interventions/{each.id}/reject")


def release(facts: RunFacts) -> Deed:
    question = "Release the hold? The trainer goes on from where it stands."
    return Deed("Release", question, "Released: the run goes on.", "POST", f"/runs/{facts.run.id}/release")


def by_hand(facts: RunFacts, incident: Incident | None) -> None:
    """A rollback that a person wishes; said why not where the run could not obey."""
    if facts.run.state != "running" or CAN_ROLL_BACK not in facts.run.capabilities:
        return
    if not facts.run.restorable_steps:
        st.caption("Roll back by hand: this run has reported no checkpoint that it can restore yet.")
        return
    if st.button("Roll back by hand", key="by-hand", icon=":material/undo:"):
        roll_back(facts, incident)


@st.dialog("Roll back by hand?")
def roll_back(facts: RunFacts, incident: Incident | None) -> None:
    policy = run_policy.policy_of(facts.run.policy)
    if is_silent(facts.run, time.time()):
        st.warning("The run has not reported for a while: it obeys when it is back.", icon=":material/schedule:")
    steps = sorted({int(step) for step in facts.run.restorable_steps}, reverse=True)
    onset = facts.progress.done if incident is None else incident.onset_step
    wanted = next((step for step in steps if step <= onset - policy.min_depth), steps[-1])
    target = st.selectbox(
        "Rewind to step", steps, index=steps.index(wanted), key="hand-step", format_func=lambda step: f"{step:,}",
        help="Checkpoints that the trainer can restore, the newest first.",
    )  # fmt: skip
    count = st.number_input("Batches to skip", 0, 1_000_000, policy.skip_min, key="hand-skip")
    operate.ask(wish(facts, int(target), int(count)), reason=True)


def wish(facts: RunFacts, target: int, count: int) -> Deed:
    first = incident_window.batch_at(facts, target)
    skip = (
        f", skip {formatting.plural(count, 'batch', 'batches')} {formatting.batches(first, first + count)}"
        if count
        else ""
    )
    question = f"Go back from step {facts.progress.done:,} to step {target:,}{skip}. "
    lost = formatting.plural(max(0, facts.progress.done - target), "step")
    body = {"rewind_to": target, "skip_to": first + count}
    done = f"Ordered: back to step {target:,}."
    question += f"{lost} of training are given up."
    return Deed("Roll back", question, done, "POST", f"/runs/{facts.run.id}/rollback", body)
