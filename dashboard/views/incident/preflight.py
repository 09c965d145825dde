"""Preflight of a proposed intervention for the person who approves it, and the link that opens the dialog.

In the URL: ?run=ID&incident=N&approve=M opens the dialog for intervention M.
"""

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import pending, preflights
from dashboard.data.facts import RunFacts
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from db.models import Intervention
from monitor.detection.interventions import preflight_text
from monitor.detection.interventions.preflight import Preflight


def show(facts: RunFacts, each: Intervention) -> None:
    """A panel above the buttons."""
    found = preflights.read(facts, each)
    with st.container(border=True):
        st.markdown(f"**Before you approve intervention {each.number}**")
        if found.step is not None:
            show_metrics(found)
        show_verdict(found)
        st.markdown(formatting.bullet_list(found.sentences))
        show_texts(found)


def show_metrics(found: Preflight) -> None:
    width, unit = METRIC_WIDTH_PIXELS, found.unit
    cost = "-" if found.rollback_hours is None else preflight_text.number_of_hours(found.rollback_hours)
    restore = "not measured" if found.restore_seconds is None else preflight_text.duration(found.restore_seconds)
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


def show_verdict(found: Preflight) -> None:
    """Show what speaks against an approval."""
    if found.refused is not None:
        why = formatting.escape_markdown(found.refused)
        st.error(f"The trainer would refuse this order: {why}.", icon=":material/block:")
    if found.restorable is False:
        st.error("The checkpoint cannot be restored. An approval would fail.", icon=":material/block:")


def show_texts(found: Preflight) -> None:
    """The beginning of what is skipped, as it is: never as Markdown."""
    for batch, text in found.texts:
        st.caption(f"Batch {batch:,}, which is skipped, begins with:")
        st.code(formatting.visible(text), language=None, wrap_lines=True)


def question(facts: RunFacts, each: Intervention) -> str:
    """Return the preflight for the dialog, in Markdown."""
    found = preflights.read(facts, each)
    texts = [f"Batch {batch:,} begins with: {formatting.visible(text)}" for batch, text in found.texts]
    return formatting.bullet_list([*found.sentences, *texts])


def asked_for(facts: RunFacts) -> Intervention | None:
    """The intervention whose dialog the URL asks for, once: it is then taken out of the URL."""
    number = url_state.take_number("approve")
    if number is None:
        return None
    found = next((each for each in pending.proposed(facts) if each.number == number), None)
    if found is None:
        st.info(f"Intervention {number:,} does not wait for approval any more.", icon=":material/info:")
    return found
