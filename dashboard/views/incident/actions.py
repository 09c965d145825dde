"""What an operator can do about an incident: approve, reject, release the hold, accept what is, roll back."""

import time

import streamlit as st

from dashboard import formatting
from dashboard.data import incident_window, pending
from dashboard.data.facts import RunFacts
from dashboard.data.progress import is_silent
from dashboard.operator_actions import OperatorAction
from dashboard.views import operate, waiting
from dashboard.views.incident import preflight
from db.models import Incident, Intervention
from lossguard.protocol import CAN_ROLL_BACK
from lossguard.states import IncidentKind, IncidentState, RunState
from monitor.detection.interventions import run_policy
from monitor.detection.interventions.restorable import RestorableStep, restorable_steps

MAX_SKIPPED_BATCHES = 1_000_000
NOT_OF_THE_LEVEL = (IncidentKind.NONFINITE, IncidentKind.REPLAY_MISMATCH)


def show(facts: RunFacts, incident: Incident) -> None:
    """What waits for a decision, and the buttons."""
    waiting.show_warnings(facts)
    for each in pending.proposed(facts):
        preflight.show(facts, each)
    if (linked := preflight.asked_for(facts)) is not None:
        operate.confirm(approve(facts, linked))
    with st.container(horizontal=True):
        for each in pending.proposed(facts):
            operate.button("Approve", approve(facts, each), key="approve", icon=":material/check:", primary=True)
            operate.button("Reject", reject(each), key="reject", icon=":material/close:")
        if pending.is_held(facts):
            operate.button("Release", release(facts), key="release", icon=":material/play_arrow:", primary=True)
        if is_level_in_question(facts, incident):
            operate.button(
                "This is the new normal", accept_level(facts), key="accept-level", icon=":material/done_all:"
            )
        if is_replay_in_question(incident):
            operate.button(
                "This difference is normal", accept_replay(facts), key="accept-replay", icon=":material/done_all:"
            )
        manual_rollback(facts, incident)


def is_level_in_question(facts: RunFacts, incident: Incident) -> bool:
    """The loss is out of its band, the run reports, and nothing has been ordered about it."""
    is_open = incident.state == IncidentState.OPEN and incident.kind not in NOT_OF_THE_LEVEL
    return is_open and incident.signal == "loss" and facts.run.state == RunState.RUNNING


def accept_level(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Accept the level",
        question="Is the present level of the loss the new normal? It is learnt at once, the incident ends, and what "
        "is proposed for it is withdrawn.",
        success="The level is accepted. The incident has ended.",
        method="POST",
        path=f"/runs/{facts.run.id}/accept-level",
    )


def is_replay_in_question(incident: Incident) -> bool:
    """Recomputed steps differ from their record. A run that has ended waits for an answer, too."""
    return incident.state == IncidentState.OPEN and incident.kind == IncidentKind.REPLAY_MISMATCH


def accept_replay(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Accept the difference",
        question="May recomputed steps of this run differ from their record as these did? The incident ends, and such "
        "a difference is normal from now on.",
        success="The difference is accepted. The incident has ended.",
        method="POST",
        path=f"/runs/{facts.run.id}/accept-replay",
    )


def approve(facts: RunFacts, each: Intervention) -> OperatorAction:
    what = formatting.intervention_sentence(each, None)
    return OperatorAction(
        label="Approve",
        question=f"Approve intervention {each.number}? {what}\n\n{preflight.question(facts, each)}",
        success=f"Intervention {each.number} approved.",
        method="POST",
        path=f"/interventions/{each.id}/approve",
    )


def reject(each: Intervention) -> OperatorAction:
    return OperatorAction(
        label="Reject",
        question=f"Reject intervention {each.number}? Training continues unchanged, and nothing else is proposed for "
        "this incident.",
        success=f"Intervention {each.number} rejected.",
        method="POST",
        path=f"/interventions/{each.id}/reject",
    )


def release(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Release",
        question="Release the hold? Training continues from the current step.",
        success="Hold released. Training continues.",
        method="POST",
        path=f"/runs/{facts.run.id}/release",
    )


def manual_rollback(facts: RunFacts, incident: Incident | None) -> None:
    """The button for a manual rollback, or why there is none yet. Nothing if the run takes no orders."""
    if facts.run.state != RunState.RUNNING or CAN_ROLL_BACK not in facts.run.capabilities:
        return
    if not facts.run.restorable_steps:
        st.caption("Manual rollback: not possible until the run reports a checkpoint that it can restore.")
        return
    if st.button("Roll back manually", key="manual-rollback", icon=":material/undo:"):
        rollback_dialog(facts, incident)


@st.dialog("Roll back manually?")
def rollback_dialog(facts: RunFacts, incident: Incident | None) -> None:
    policy = run_policy.policy_of(facts.run.policy)
    if is_silent(facts.run, time.time()):
        st.warning(
            "The run has not reported for a while. It will roll back when it connects again.",
            icon=":material/schedule:",
        )
    restorable = restorable_steps(set(facts.run.restorable_steps), facts.run.restorable_tiers)
    labels = {each.step: restorable_label(each) for each in reversed(restorable)}
    steps = list(labels)
    onset = facts.progress.done if incident is None else incident.onset_step
    default = next((step for step in steps if step <= onset - policy.min_depth), steps[-1])
    target = st.selectbox(
        "Rewind to step", steps, index=steps.index(default), key="rewind-step", format_func=labels.__getitem__,
        help="Checkpoints that the trainer can restore, newest first, and how long the last load from there took.",
    )  # fmt: skip
    num_batches = st.number_input("Batches to skip", 0, MAX_SKIPPED_BATCHES, policy.skip_min, key="skip-batches")
    operate.confirmation_form(rollback(facts, int(target), int(num_batches)), fields=operate.reason)


def restorable_label(each: RestorableStep) -> str:
    """Such as "4,980 (from memory, 0.1 s)"."""
    origin = each.describe()
    return f"{each.step:,} ({origin})" if origin else f"{each.step:,}"


def rollback(facts: RunFacts, target: int, num_batches: int) -> OperatorAction:
    done, first = facts.progress.done, incident_window.batch_at(facts, target)
    count, batches = formatting.plural(num_batches, "batch", "batches"), formatting.batches(first, first + num_batches)
    skip = f" and skip {count} {batches}" if num_batches else ""
    discarded = formatting.plural(max(0, done - target), "step")
    return OperatorAction(
        label="Roll back",
        question=f"Roll back from step {done:,} to step {target:,}{skip}. This discards {discarded} of training.",
        success=f"Rollback to step {target:,} ordered.",
        method="POST",
        path=f"/runs/{facts.run.id}/rollback",
        body={"rewind_to": target, "skip_to": first + num_batches},
    )
