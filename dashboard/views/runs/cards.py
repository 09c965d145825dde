"""A run as a card: its link and its checkbox are Streamlit's, and what is only read is HTML.

With Streamlit's own numbers and badges, a view of twenty cards takes the browser twice the CPU time.
"""

import html
import time

import streamlit as st

from dashboard import formatting
from dashboard.data.run_list import SPARKLINE_STEPS, RunCard
from dashboard.figures.sparkline import sparkline
from dashboard.views import states
from dashboard.views.runs import selection
from db.runs.overview import Tally
from db.runs.verdicts import Verdict
from lossguard.vocabulary.run_search import tags_of

LOSS_HELP = (
    "The newest value; the verdict goes by the median of the last few. "
    f"The line shows the largest values of the last {SPARKLINE_STEPS:,} steps."
)


def show(card: RunCard, tally: Tally, verdict: Verdict) -> None:
    with st.container(border=True, key=f"card-{card.run.pk}", horizontal=True, vertical_alignment="top"):
        _name(card, tally, verdict)
        st.html(facts_html(card, tally, verdict, time.time()))


def _name(card: RunCard, tally: Tally, verdict: Verdict) -> None:
    run = card.run
    with st.container(width=280, gap="small"):
        label = formatting.escape_markdown(formatting.run_title(run))
        st.page_link("views/run/page.py", label=f"**{label}**", query_params={"run": run.id})
        st.caption(formatting.escape_markdown(" / ".join(filter(None, (run.id, run.host, formatting.hardware(run))))))
        with st.container(horizontal=True, vertical_alignment="center"):
            states.verdict(verdict, *_marks(card))
            _tick(run.pk, run.id)
            states.needs_a_person(run, tally.waiting)


def _marks(card: RunCard) -> list[str]:
    """Badges beside that of the state, in Markdown."""
    archived = [states.badge_text("archived", "gray", ":material/inventory_2:")] * (card.run.archived_at is not None)
    tags = map(formatting.escape_markdown, tags_of(card.run.tags, card.run.config))
    return [*archived, *(states.badge_text(tag, "gray", ":material/sell:") for tag in tags)]


def _tick(pk: int, run_id: str) -> None:
    version = selection.version()
    key = f"select-{pk}-{version}"  # a refresh that was on its way when the selection was cleared has the old key
    st.session_state[key] = run_id in selection.selected_ids()
    st.checkbox("Select", key=key, on_change=selection.toggle, args=(run_id, version))


def facts_html(card: RunCard, tally: Tally, verdict: Verdict, now: float) -> str:
    """The numbers of a card with their names, the line of its loss and the bar of its progress."""
    facts = [
        _fact("Last loss", formatting.number(card.loss), below=_loss_line(card.sparkline), help=LOSS_HELP),
        _fact(
            formatting.steps_label(card.progress.total),
            formatting.short_count(card.progress.done),
            below=_progress_bar(card, verdict),
        ),
        _fact("Tokens", formatting.abbreviated(card.tokens)),
        _fact("Open incidents", str(tally.open_incidents)),
        _fact("Interventions", str(tally.interventions)),
        _fact("Last report", formatting.ago(now - card.run.last_report_at)),
    ]
    return f'<dl class="card-facts">{"".join(facts)}</dl>'


def _fact(name: str, value: str, *, below: str = "", help: str = "") -> str:
    """`below` is HTML."""
    title = f' title="{html.escape(help)}"' if help else ""
    return f"<div{title}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>{below}</div>"


def _loss_line(values: list[float]) -> str:
    if not values:
        return ""
    low, high = formatting.number(min(values)), formatting.number(max(values))
    return sparkline(values, label=f"Largest losses of the last steps, from {low} to {high}")


def _progress_bar(card: RunCard, verdict: Verdict) -> str:
    progress = card.progress
    if progress.fraction is None:
        return ""
    has_time_left = verdict.is_training and progress.seconds_left is not None
    left = f"{formatting.duration(progress.seconds_left)} left" if has_time_left else f"{progress.fraction:.0%}"
    return (
        f'<span class="progress">{html.escape(left)}</span>'
        f'<progress max="1" value="{progress.fraction:.4f}" aria-label="Progress"></progress>'
    )
