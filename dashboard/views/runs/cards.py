"""A run as a card."""

import time

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunCard
from dashboard.data.progress import is_silent
from dashboard.figures.sparkline import sparkline
from dashboard.views import states
from dashboard.views.runs import selection
from db.overview import Tally
from lossguard.run_tags import tags_of
from lossguard.states import RunState

COLUMN_WIDTH_PIXELS = 155  # two columns fit side by side on a phone


def show(card: RunCard, tally: Tally) -> None:
    with (
        st.container(border=True, key=f"card-{card.run.pk}"),
        st.container(horizontal=True, vertical_alignment="top"),
    ):
        _name(card, tally)
        _loss(card)
        _progress(card)
        st.metric("Tokens", formatting.abbreviated(card.tokens), width=COLUMN_WIDTH_PIXELS)
        st.metric("Open incidents", tally.open_incidents, width=COLUMN_WIDTH_PIXELS)
        st.metric("Interventions", tally.interventions, width=COLUMN_WIDTH_PIXELS)
        last_report = formatting.ago(time.time() - card.run.last_report_at)
        st.metric("Last report", last_report, width=COLUMN_WIDTH_PIXELS)


def _name(card: RunCard, tally: Tally) -> None:
    run = card.run
    with st.container(width=280, gap="small"):
        label = formatting.escape_markdown(formatting.run_title(run))
        st.page_link("views/run/page.py", label=f"**{label}**", query_params={"run": run.id})
        st.caption(formatting.escape_markdown(" / ".join(filter(None, (run.id, run.host, formatting.hardware(run))))))
        with st.container(horizontal=True, vertical_alignment="center"):
            states.run_badge(run)
            _tick(run.pk, run.id)
            states.needs_a_person(run, tally.waiting)
            if run.archived_at is not None:
                st.badge("archived", color="gray", icon=":material/inventory_2:")
            for tag in tags_of(run.tags, run.config):
                st.badge(formatting.escape_markdown(tag), color="gray", icon=":material/sell:")


def _tick(pk: int, run_id: str) -> None:
    key = f"select-{pk}"
    st.session_state[key] = run_id in selection.selected_ids()  # it can be cleared elsewhere
    st.checkbox("Select", key=key, on_change=selection.toggle, args=(run_id,))


def _loss(card: RunCard) -> None:
    help_text = f"The newest value. The line shows the largest values of the last {cached.SPARKLINE_STEPS:,} steps."
    with st.container(width=COLUMN_WIDTH_PIXELS, gap="small"):
        st.metric("Loss", formatting.number(card.loss), help=help_text)
        if card.sparkline:
            low, high = formatting.number(min(card.sparkline)), formatting.number(max(card.sparkline))
            st.html(sparkline(card.sparkline, label=f"Largest losses of the last steps, from {low} to {high}"))


def _progress(card: RunCard) -> None:
    progress = card.progress
    is_running = card.run.state == RunState.RUNNING and not is_silent(card.run, time.time())
    with st.container(width=COLUMN_WIDTH_PIXELS, gap="small"):
        st.metric(formatting.steps_label(progress.total), formatting.short_count(progress.done))
        if progress.fraction is not None:
            has_time_left = is_running and progress.seconds_left is not None
            left = f"{formatting.duration(progress.seconds_left)} left" if has_time_left else f"{progress.fraction:.0%}"
            st.progress(progress.fraction, text=left)
