"""Actions of an operator on an incident: approve, reject, release the hold, accept what is, roll back."""

import streamlit as st

from dashboard.data import cached, pending
from dashboard.data.facts import RunFacts
from dashboard.operator_actions import OperatorAction
from dashboard.views import decisions, manual_rollback, operate, waiting
from db.models import Incident
from lossguard.vocabulary.states import IncidentKind, IncidentState, RunState

NOT_OF_THE_LEVEL = (IncidentKind.NONFINITE, IncidentKind.REPLAY_MISMATCH)


def show(facts: RunFacts, incident: Incident) -> None:
    """Show what waits for a decision, and the buttons."""
    waiting.show_sentences(facts)
    for each in pending.proposed(facts):
        decisions.show_preflight(facts, each)
    decisions.open_linked_dialog(facts)
    with st.container(horizontal=True):
        for each in pending.proposed(facts):
            decisions.approve_and_reject(facts, each)
        if (hold := pending.hold(facts)) is not None:
            waiting.hold_buttons(facts, hold)
        run_id, number, icon = facts.run.id, incident.number, ":material/done_all:"

        def ended() -> str | None:
            return pending.ended_meanwhile(cached.facts(run_id), number)

        if is_level_in_question(facts, incident):
            action = accept_level(facts)
            operate.button("This is the new normal", action, key="accept-level", icon=icon, obsolete=ended)
        if is_replay_in_question(incident):
            action = accept_replay(facts)
            operate.button("This difference is normal", action, key="accept-replay", icon=icon, obsolete=ended)
        if hold is None:
            manual_rollback.button(facts, incident)


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
        path=f"/runs/{facts.run.id}/accept-level",
    )


def is_replay_in_question(incident: Incident) -> bool:
    """True if the mismatch of a replay is open. A run that has ended waits for an answer, too."""
    return incident.state == IncidentState.OPEN and incident.kind == IncidentKind.REPLAY_MISMATCH


def accept_replay(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Accept the difference",
        question="May recomputed steps of this run differ from their record as these did? The incident ends, and such "
        "a difference is normal from now on.",
        success="The difference is accepted. The incident has ended.",
        path=f"/runs/{facts.run.id}/accept-replay",
    )
