"""A run as a card: its link and its checkbox are Streamlit's, and what is only read is HTML.

With Streamlit's own numbers and badges, a view of twenty cards takes the browser twice the CPU time.
"""

import html
import time
from collections.abc import Sequence
from urllib.parse import quote

import streamlit as st

from dashboard import formatting
from dashboard.data.facts import StepProgress
from dashboard.data.run_list import SPARKLINE_STEPS, ListedRun, RunCard
from dashboard.figures.style import BLUE
from dashboard.views import states
from dashboard.views.runs import selection
from lossguard.vocabulary.run_search import tags_of

LOSS_HELP = (
    "The newest value; the verdict goes by the median of the last few. "
    f"The line shows the largest values of the last {SPARKLINE_STEPS:,} steps."
)
WIDTH, HEIGHT, MARGIN = 150, 48, 3
"""Size and margin of the picture of a sparkline, in pixels."""


def show(row: ListedRun, card: RunCard) -> None:
    with st.container(border=True, key=f"card-{row.run.pk}", horizontal=True, vertical_alignment="top"):
        _name(row)
        st.html(_facts_html(row, card))


def _name(row: ListedRun) -> None:
    run = row.run
    badges = [states.badge_text("archived", "gray", ":material/inventory_2:")] if run.archived_at is not None else []
    for tag in tags_of(run.tags, run.config):
        badges.append(states.badge_text(formatting.escape_markdown(tag), "gray", ":material/sell:"))
    with st.container(width=280, gap="small"):
        label = formatting.escape_markdown(formatting.run_title(run))
        st.page_link("views/run/page.py", label=f"**{label}**", query_params={"run": run.id})
        st.caption(formatting.escape_markdown(" / ".join(filter(None, (run.id, run.host, formatting.hardware(run))))))
        with st.container(horizontal=True, vertical_alignment="center"):
            states.verdict(row.verdict, *badges)
            version = selection.version()
            # A refresh that was on its way when the selection was cleared has the old key.
            key = f"select-{run.pk}-{version}"
            st.session_state[key] = run.id in selection.selected_ids()
            st.checkbox("Select", key=key, on_change=selection.toggle, args=(run.id, version))
            states.needs_a_person(run, row.tally.waiting)


def _facts_html(row: ListedRun, card: RunCard) -> str:
    """The numbers of a card with their names, the line of its loss and the bar of its progress."""
    progress, loss_line = card.progress, ""
    if card.sparkline:
        low, high = formatting.number(min(card.sparkline)), formatting.number(max(card.sparkline))
        loss_line = _sparkline(card.sparkline, label=f"Largest losses of the last steps, from {low} to {high}")
    facts = [
        _fact("Last loss", formatting.number(card.loss), below=loss_line, help=LOSS_HELP),
        _fact(
            formatting.steps_label(progress.total),
            formatting.short_count(progress.done),
            below=_progress_bar(progress, is_training=row.verdict.is_training),
        ),
        _fact("Tokens", formatting.abbreviated(card.tokens)),
        _fact("Open incidents", str(row.tally.open_incidents)),
        _fact("Interventions", str(row.tally.interventions)),
        _fact("Last report", formatting.ago(time.time() - row.run.last_report_at)),
    ]
    return f'<dl class="card-facts">{"".join(facts)}</dl>'


def _fact(name: str, value: str, *, below: str = "", help: str = "") -> str:
    """`below` is HTML."""
    title = f' title="{html.escape(help)}"' if help else ""
    return f"<div{title}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>{below}</div>"


def _progress_bar(progress: StepProgress, *, is_training: bool) -> str:
    if progress.fraction is None:
        return ""
    has_time_left = is_training and progress.seconds_left is not None
    left = f"{formatting.duration(progress.seconds_left)} left" if has_time_left else f"{progress.fraction:.0%}"
    return (
        f'<span class="progress">{html.escape(left)}</span>'
        f'<progress max="1" value="{progress.fraction:.4f}" aria-label="Progress"></progress>'
    )


def _sparkline(values: Sequence[float], *, label: str) -> str:
    """HTML of the line through finite values at equal distances, without axes; `label` is for screen readers.

    Streamlit's own, of `st.metric`, loads Vega for it, which warns on the console of an axis without values.
    """
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><polyline points="{points(values)}" '
        f'fill="none" stroke="{BLUE}" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )
    size = f'width="{WIDTH}" height="{HEIGHT}" style="display: block"'
    return f'<img src="data:image/svg+xml,{quote(svg)}" {size} alt="{html.escape(label)}">'


def points(values: Sequence[float]) -> str:
    """Corners of the line, within WIDTH and HEIGHT; a constant, as a single value is, lies in the middle."""
    values = values if len(values) > 1 else [*values, *values]
    halves = [value / 2 for value in values]  # their difference does not overflow
    low, height = min(halves), max(halves) - min(halves)
    shares = [(half - low) / height if height else 0.5 for half in halves]
    step = (WIDTH - 2 * MARGIN) / (len(shares) - 1)
    return " ".join(
        f"{MARGIN + step * place:.1f},{MARGIN + (HEIGHT - 2 * MARGIN) * (1 - share):.1f}"
        for place, share in enumerate(shares)
    )
