"""The decisions that interventions wait for: approve, reject, release. Their grounds, buttons and dialogs.

In the URL: ?run=ID&incident=N&approve=M opens the dialog for intervention M.
"""

import time

import streamlit as st
from sqlalchemy.orm import Session

from dashboard import formatting, url_state
from dashboard.data import cached, pending
from dashboard.data.facts import RunFacts
from dashboard.data.store import cached_read
from dashboard.operator_actions import OperatorAction
from dashboard.views import operate
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from db import queries
from db.models import Intervention
from db.records import preflights
from monitor.detection.interventions.preflight import Known, Preflight, duration, number_of_hours, preflight


def preflight_of(facts: RunFacts, each: Intervention) -> Preflight:
    """Read the facts as of now. Raises StoreUnavailable."""
    return _preflight(facts.run.id, each.number, each)


@cached_read()
def _preflight(session: Session, run_id: str, number: int, _each: Intervention) -> Preflight:
    run = queries.run_named(session, run_id=run_id)
    assert run is not None  # its facts were read
    return preflight(Known(**preflights.known(session, run=run, intervention=_each, now=time.time())))


def show_preflight(facts: RunFacts, each: Intervention) -> None:
    """A panel above the buttons."""
    found = preflight_of(facts, each)
    with st.container(border=True):
        st.markdown(f"**Before you approve intervention {each.number}**")
        if found.step is not None:
            show_metrics(found)
        if found.refused is not None:
            why = formatting.escape_markdown(found.refused)
            st.error(f"The trainer would refuse this order: {why}.", icon=":material/block:")
        if found.restorable is False:
            st.error("The checkpoint cannot be restored. An approval would fail.", icon=":material/block:")
        st.markdown(formatting.bullet_list(found.sentences))
        for batch, text in found.texts:
            st.caption(f"Batch {batch:,}, which is skipped, begins with:")
            st.code(formatting.visible(text), language=None, wrap_lines=True)  # as it is: never as Markdown


def show_metrics(found: Preflight) -> None:
    width, unit = METRIC_WIDTH_PIXELS, found.unit
    cost = "-" if found.rollback_hours is None else number_of_hours(found.rollback_hours)
    restore = "not measured" if found.restore_seconds is None else duration(found.restore_seconds)
    with st.container(horizontal=True):
        st.metric("Checkpoint", checkpoint(found), width=width, help=formatting.escape_markdown(found.asked))
        st.metric("Restore", restore, width=width, help="How long the last load from there took.")
        st.metric("Discards", formatting.plural(found.recomputed_steps or 0, "step"), width=width)
        cost_help = f"{unit}: the restore, and the steps up to the newest one."
        st.metric("Rolling back costs", cost, width=width, help=cost_help)
        st.metric("Each hour adds", f"+{found.hours_per_hour:,.0f}", width=width, help=f"{unit}, if you wait.")
        st.metric("Skips", formatting.plural(found.skipped_batches, "batch", "batches"), width=width)


def checkpoint(found: Preflight) -> str:
    """Return the checkpoint's place, such as "in memory"."""
    if found.restorable is None:
        return "not known"
    return (found.tier or "there") if found.restorable else "gone"


def approve_and_reject(facts: RunFacts, each: Intervention) -> None:
    """Two buttons. Their dialogs offer nothing once somebody else has decided."""
    more = "" if len(pending.proposed(facts)) == 1 else f"-{each.number}"
    found, decided = preflight_of(facts, each), _decided(facts, each)
    advised = found.refused is None and found.restorable is not False
    approval, icon = approve(facts, each), ":material/check:"
    operate.button("Approve", approval, key=f"approve{more}", icon=icon, primary=advised, obsolete=decided)
    operate.button("Reject", reject(each), key=f"reject{more}", icon=":material/close:", obsolete=decided)


def _decided(facts: RunFacts, each: Intervention) -> operate.Obsolete:
    run_id, number = facts.run.id, each.number
    return lambda: pending.decided_meanwhile(cached.facts(run_id), number)


def release_button(facts: RunFacts, hold: Intervention, *, primary: bool) -> None:
    run_id, number, action, icon = facts.run.id, hold.number, release(facts), ":material/play_arrow:"
    operate.button(
        "Release",
        action,
        key="release",
        icon=icon,
        primary=primary,
        obsolete=lambda: pending.released_meanwhile(cached.facts(run_id), number),
    )


def open_linked_dialog(facts: RunFacts) -> None:
    """Open the dialog of the approval that the URL asks for, once: ?approve=N is then taken out of the URL."""
    number = url_state.number("approve")
    st.query_params.pop("approve", None)
    each = next((each for each in pending.proposed(facts) if each.number == number), None)
    if each is not None:
        operate.confirm(approve(facts, each), _decided(facts, each))
    elif number is not None:
        st.info(f"Intervention {number:,} does not wait for approval any more.", icon=":material/info:")


def approve(facts: RunFacts, each: Intervention) -> OperatorAction:
    what, found = formatting.intervention_sentence(each, None), preflight_of(facts, each)
    texts = [f"Batch {batch:,} begins with: {formatting.visible(text)}" for batch, text in found.texts]
    facts_found = formatting.bullet_list([*found.sentences, *texts])
    return OperatorAction(
        label="Approve",
        question=f"Approve intervention {each.number}? {what} {waited(each)}\n\n{facts_found}",
        success=f"Intervention {each.number} approved.",
        path=f"/interventions/{each.id}/approve",
    )


def waited(each: Intervention) -> str:
    return f"It has waited for {formatting.duration(time.time() - each.created_at)}."


def reject(each: Intervention) -> OperatorAction:
    return OperatorAction(
        label="Reject",
        question=f"Reject intervention {each.number}? Training continues unchanged, and nothing else is proposed for "
        "this incident.",
        success=f"Intervention {each.number} rejected.",
        path=f"/interventions/{each.id}/reject",
    )


def release(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Release",
        question="Release the hold? Training continues from the current step.",
        success="Hold released. Training continues.",
        path=f"/runs/{facts.run.id}/release",
    )
