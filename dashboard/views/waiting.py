"""What needs a person: proposed interventions, a hold, incidents that no policy answers; with the buttons to decide."""

import time

import streamlit as st

from dashboard import formatting
from dashboard.data import pending, preflights
from dashboard.data.facts import RunFacts
from dashboard.views import banner, decisions, manual_rollback
from db.models import Incident, Intervention
from lossguard.vocabulary.protocol import CAN_ROLL_BACK
from lossguard.vocabulary.states import RunState
from monitor.detection.interventions import preflight_text

MAX_UNRESOLVED = 3
"""Of incidents that no policy answers; the table of incidents begins with all open ones."""
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


def show_sentences(facts: RunFacts) -> None:
    """The warnings, and what a hold leaves to decide, without buttons."""
    for each in pending.proposed(facts):
        st.warning(pending.proposal_sentence(each), icon=":material/person_raised_hand:")
    if (hold := pending.hold(facts)) is not None:
        _show_hold(facts, hold)


def show(facts: RunFacts) -> None:
    """The same, each with its buttons and a link to its incident."""
    for each in pending.proposed(facts):
        with st.container(gap="small", key=f"decide-{each.number}"):
            st.warning(pending.proposal_sentence(each), icon=":material/person_raised_hand:")
            st.caption(formatting.escape_markdown(" ".join(costs(facts, each))))
            with st.container(horizontal=True, vertical_alignment="center"):
                decisions.approve_and_reject(facts, each)
                link(facts, each.incident)
    if (hold := pending.hold(facts)) is not None:
        with st.container(gap="small", key="decide-hold"):
            _show_hold(facts, hold)
            with st.container(horizontal=True, vertical_alignment="center"):
                decisions.release_button(facts)
                manual_rollback.button(facts, _incident(facts, hold.incident))
                link(facts, hold.incident)
    if facts.run.state == RunState.RUNNING:
        banner.show_missing_address()
    for incident in pending.unresolved(facts)[:MAX_UNRESOLVED]:
        sentence = formatting.escape_markdown(pending.unresolved_sentence(facts, incident))
        st.warning(sentence, icon=":material/person_raised_hand:")
        link(facts, incident.number)


def link(facts: RunFacts, number: int | None) -> None:
    """To the page of an incident; nothing where there is none."""
    if number is not None:
        query = {"run": facts.run.id, "incident": str(number)}
        label = f"Open incident {number}"
        st.page_link("views/incident/page.py", label=label, icon=":material/crisis_alert:", query_params=query)


def costs(facts: RunFacts, each: Intervention) -> list[str]:
    """How long it has waited, what approving it costs, and what speaks against it."""
    found = preflights.read(facts, each)
    sentences = [decisions.waited(each)]
    if found.recomputed_steps is not None and found.step is not None:
        cost = "" if found.rollback_hours is None else f" ({preflight_text.hours(found.rollback_hours, found.unit)})"
        steps = formatting.plural(found.recomputed_steps, "step")
        sentences.append(f"Approving it discards {steps}{cost} and skips {_batches(found.skipped_batches)}.")
    if found.refused is not None:
        sentences.append(f"The trainer would refuse this order: {found.refused}.")
    if found.restorable is False:
        sentences.append("The checkpoint cannot be restored: an approval would fail.")
    return sentences


def _batches(count: int) -> str:
    return formatting.plural(count, "batch", "batches") if count else "no batches"


def _show_hold(facts: RunFacts, hold: Intervention) -> None:
    """Since when, on what grounds, and what a person can do."""
    waited = formatting.duration(time.time() - hold.changed_at)
    st.warning(f"{pending.HELD_SENTENCE} It has waited for {waited}.", icon=":material/front_hand:")
    left, right = st.columns([2, 3], gap="medium")
    grounds = formatting.bullet_list(hold.details.get("reasons", [])) or "No reason was recorded."
    left.markdown(f"Why the run was stopped:\n\n{grounds}")
    right.markdown("What you can do:\n\n" + "\n".join(f"- {each}" for each in options(facts)))


def options(facts: RunFacts) -> list[str]:
    """What a person can decide about a run on hold, in Markdown."""
    can_roll_back = CAN_ROLL_BACK in facts.run.capabilities and bool(facts.run.restorable_steps)
    return [RELEASE, *[ROLL_BACK] * can_roll_back, LOWER_LR, STOP]


def _incident(facts: RunFacts, number: int | None) -> Incident | None:
    return next((each for each in facts.incidents if each.number == number), None)
