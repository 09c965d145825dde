"""Needs of a run: proposed interventions, a hold, open incidents; with the buttons to decide about them."""

import time
from collections.abc import Sequence

import streamlit as st

from dashboard import formatting
from dashboard.data import cached, incident_window, pending
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import LEAD_STEPS
from dashboard.data.store import StepsUnreadable, database_url
from dashboard.figures import component
from dashboard.figures.component import cached_figure
from dashboard.figures.incident import Futures, decision_figure
from dashboard.operator_actions import OperatorAction
from dashboard.views import decisions, frame, manual_rollback, operate
from db.models import Incident, Intervention
from db.run_states import is_proposed
from lossguard.vocabulary.protocol import CAN_ROLL_BACK
from lossguard.vocabulary.states import Arm, IncidentKind, IncidentState, OrderKind, RunState
from monitor.detection.interventions import preflight

NOT_OF_THE_LEVEL = (IncidentKind.NONFINITE, IncidentKind.REPLAY_MISMATCH)
MAX_UNRESOLVED = 3
"""Maximum incidents shown that no policy answers; the table of incidents begins with all open ones."""
RELEASE = "**Release**: training continues from the current step, as it is."
ROLL_BACK = (
    "**Roll back manually**: to an earlier checkpoint, with more batches skipped than the policy may skip, or with a "
    "lower learning rate or a remedy, if the run can apply them."
)
LOWER_LR = (
    "**Lower the learning rate**: stop the trainer (Ctrl-C or SIGTERM; it saves a checkpoint), lower the rate in its "
    "configuration, and start it again with the same run id. The restart ends the hold."
)
STOP = "**Stop the run**: end the trainer in the same way, and do not start it again."


def show(facts: RunFacts) -> None:
    """Show each need with its buttons and a link to its incident."""
    for each in pending.to_decide(facts):
        with st.container(gap="small", key=f"decide-{each.number}" if is_proposed(each) else "decide-hold"):
            left, right = st.columns([2, 3], gap="medium")
            with left:
                _show_need(facts, each)
                with st.container(horizontal=True, vertical_alignment="center"):
                    if is_proposed(each):
                        decisions.approve_and_reject(facts, each)
                    else:
                        hold_buttons(facts, each)
                    link(facts, each.incident)
            with right:
                _show_picture(facts, each)
    if facts.run.state == RunState.RUNNING:
        frame.show_missing_address()
    for incident in pending.unresolved(facts)[:MAX_UNRESOLVED]:
        sentence = formatting.escape_markdown(pending.unresolved_sentence(facts, incident))
        st.warning(sentence, icon=":material/person_raised_hand:")
        link(facts, incident.number)


def hold_buttons(facts: RunFacts, hold: Intervention) -> None:
    """The advised one first: a run whose loss is out of its band is not released."""
    is_diverged, incident = pending.is_diverged(facts), _incident(facts, hold.incident)
    if is_diverged:
        manual_rollback.button(facts, incident, primary=True)
    decisions.release_button(facts, hold, primary=not is_diverged)
    if not is_diverged:
        manual_rollback.button(facts, incident)


def _show_need(facts: RunFacts, each: Intervention) -> None:
    """Show a proposal with its cost, or since when the run is on hold and what a person can do; and on what grounds."""
    if is_proposed(each):
        st.warning(pending.proposal_sentence(each), icon=":material/person_raised_hand:")
        _show_reasons(each, "Candidates")
        st.caption(formatting.escape_markdown(" ".join(costs(facts, each))))
    else:
        waited = formatting.duration(time.time() - each.changed_at)
        st.warning(f"{pending.HELD_SENTENCE} It has waited for {waited}.", icon=":material/front_hand:")
        _show_reasons(each, "What you can do", options(facts))


def _show_reasons(each: Intervention, others: str, more: Sequence[str] = ()) -> None:
    """The first reason as a line; the others, and `more` in Markdown, folded."""
    first, *rest = each.details.get("reasons") or ["No reason was recorded."]
    st.markdown(formatting.escape_markdown(first))
    if rest or more:
        with st.expander(others):
            st.markdown("\n".join([formatting.bullet_list(rest), "", *(f"- {one}" for one in more)]))


def _show_picture(facts: RunFacts, each: Intervention) -> None:
    """The loss, and what each choice leads to; nothing where a rollback is not possible or there is no loss."""
    incident = _incident(facts, each.incident)
    target = each.rewind_to if each.kind == OrderKind.ROLLBACK else manual_rollback.default_target(facts, incident)
    if incident is None or target is None or not facts.progress.done:
        return
    newest = facts.progress.done - 1
    first = min(target - LEAD_STEPS // 3, incident.onset_step - LEAD_STEPS)
    first = max(first, newest + 1 - incident_window.MAX_WINDOW_STEPS)  # what is decided about is at the end
    try:
        around = cached.incident_window(facts, incident, (max(0, first), newest + 1))
        futures = _futures(facts, incident, each, target)
    except StepsUnreadable:  # the charts say so; the buttons need no picture
        return
    if not len(around.original) or "loss" not in around.original.metrics:
        return
    key = ("decision", database_url(), facts.run.id, incident.number, facts.stamp, futures)
    figure = cached_figure(key, lambda: decision_figure(around, futures))
    component.show(figure, key=f"decision-{facts.run.id}-{each.number}", label="What each choice leads to")


def _futures(facts: RunFacts, incident: Incident, each: Intervention, target: int) -> Futures:
    discarded = formatting.plural(max(0, facts.progress.done - target), "step")
    detected_step = incident.detected_step
    offset = cached.batch_at(facts, detected_step) - detected_step  # batches are not steps
    if each.kind != OrderKind.ROLLBACK:
        needed = manual_rollback.default_skip(facts, incident, target)
        first = cached.batch_at(facts, target) - offset
        skipped = None if needed is None else (target, first + needed)
        return Futures(target, skipped, f"roll back: discards {discarded}", "release: the loss goes on as it is")
    skipped = None
    if each.skip_from is not None:
        ends = each.skip_from, each.skip_to or each.skip_from
        skipped = max(target, ends[0] - offset), max(target, ends[1] - offset)
    choices = each.details.get("choices", [])
    remedies = {None, *(each.remedies or ())}
    same = [one for one in choices if one["rewind_to"] == target and one["remedy"] in remedies]
    back = min(same, key=lambda one: one["cost"], default=None)
    wait = next((one for one in choices if one["arm"] == Arm.WAIT), None)
    costs = f"discards {discarded}" if back is None else f"costs about {formatting.plural(round(back['cost']), 'step')}"
    waits = "the loss goes on" if wait is None else f"costs about {formatting.plural(round(wait['cost']), 'step')}"
    return Futures(target, skipped, f"roll back: {costs}", f"wait: {waits}")


def link(facts: RunFacts, number: int | None) -> None:
    """Link to the page of an incident; nothing if there is none."""
    if number is not None:
        query = {"run": facts.run.id, "incident": str(number)}
        label = f"Open incident {number}"
        st.page_link("views/incident/page.py", label=label, icon=":material/crisis_alert:", query_params=query)


def costs(facts: RunFacts, each: Intervention) -> list[str]:
    """Describe how long it has waited, the cost of an approval, and what speaks against it."""
    found = decisions.preflight_of(facts, each)
    sentences = [decisions.waited(each)]
    if found.recomputed_steps is not None and found.step is not None:
        cost = "" if found.rollback_hours is None else f" ({preflight.hours(found.rollback_hours, found.unit)})"
        steps = formatting.plural(found.recomputed_steps, "step")
        skipped = (
            formatting.plural(found.skipped_batches, "batch", "batches") if found.skipped_batches else "no batches"
        )
        sentences.append(f"Approving it discards {steps}{cost} and skips {skipped}.")
    if found.refused is not None:
        sentences.append(f"The trainer would refuse this order: {found.refused}.")
    if found.restorable is False:
        sentences.append("The checkpoint cannot be restored: an approval would fail.")
    return sentences


def options(facts: RunFacts) -> list[str]:
    """Describe a person's options about a run on hold, in Markdown."""
    can_roll_back = CAN_ROLL_BACK in facts.run.capabilities and bool(facts.run.restorable_steps)
    return [RELEASE, *[ROLL_BACK] * can_roll_back, LOWER_LR, STOP]


def _incident(facts: RunFacts, number: int | None) -> Incident | None:
    return next((each for each in facts.incidents if each.number == number), None)


def show_actions(facts: RunFacts, incident: Incident) -> None:
    """Show each decision that waits, its reason and its picture, then all buttons: also to accept what is."""
    for each in pending.to_decide(facts):
        _show_need(facts, each)
        _show_picture(facts, each)
    for each in pending.proposed(facts):
        decisions.show_preflight(facts, each)
    decisions.open_linked_dialog(facts)
    with st.container(horizontal=True):
        for each in pending.proposed(facts):
            decisions.approve_and_reject(facts, each)
        if (hold := pending.hold(facts)) is not None:
            hold_buttons(facts, hold)
        run_id, number, icon = facts.run.id, incident.number, ":material/done_all:"

        def ended() -> str | None:
            return pending.ended_meanwhile(cached.facts(run_id), number)

        if is_level_in_question(facts, incident):
            action = accept_level(facts)
            operate.button("This is the new normal", action, key="accept-level", icon=icon, obsolete=ended)
        # A run that has ended waits for an answer, too.
        if incident.state == IncidentState.OPEN and incident.kind == IncidentKind.REPLAY_MISMATCH:
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


def accept_replay(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Accept the difference",
        question="May recomputed steps of this run differ from their record as these did? The incident ends, and such "
        "a difference is normal from now on.",
        success="The difference is accepted. The incident has ended.",
        path=f"/runs/{facts.run.id}/accept-replay",
    )
