"""Run: the curves of one run and what happened to it, live while it is running.

In the URL: ?run=ID&steps=A-B&last=..&curves=..&x=..&smooth=..&discarded=..&details=..&incident=N
"""

import time
from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard import formatting
from dashboard.data import cached, pending, tables
from dashboard.data.facts import RunFacts
from dashboard.figures.marks import num_skipped
from dashboard.views import frame, operate, states, waiting
from dashboard.views.frame import METRIC_WIDTH_PIXELS
from dashboard.views.run import curves, incidents, parts, record
from dashboard.views.table import show_table
from lossguard.vocabulary.limits import limits_in
from lossguard.vocabulary.metrics import SKIPPED
from lossguard.vocabulary.protocol import IMPORTED, why_unguarded, why_unsaved
from lossguard.vocabulary.states import IncidentState
from lossguard.vocabulary.wording import never_restored


def page(facts: RunFacts) -> None:
    operate.show_success()
    header(facts)
    waiting.show(facts)
    with st.container(key="chart"):
        frame.show_parts(facts, (curves.show,))


def lower_part(facts: RunFacts) -> None:
    below = (parts.goodput, parts.families, parts.hardware, parts.compute, details)
    frame.show_parts(facts, (about, incidents.show, record.step_notes, *below))


def header(facts: RunFacts) -> None:
    run = facts.run
    states.verdict(facts.verdict)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(formatting.escape_markdown(formatting.run_title(run)), width="content", anchor=False)
        states.needs_a_person(run, pending.count(facts))
        frame.other_runs()
    if why := why_unguarded(run.capabilities):
        sentence = f"Nothing is rolled back any more: {formatting.escape_markdown(why)}."
        st.warning(f"{sentence} Start the training again to guard it.", icon=":material/remove_moderator:")
    if why := why_unsaved(run.capabilities):
        sentence = f"Checkpoints cannot be saved: {formatting.escape_markdown(why)}."
        st.warning(f"{sentence} A rollback loses more with every step.", icon=":material/save:")
    if uncertified := facts.uncertified:
        sentence = f"A checkpoint without a certificate: {never_restored(*uncertified, run.restorable_steps)}."
        st.warning(formatting.escape_markdown(sentence), icon=":material/healing:")


def about(facts: RunFacts) -> None:
    """The numbers of the run, what can be done with its record, and where it runs."""
    metrics(facts)
    run = facts.run
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "views/compare/page.py", label="Compare", icon=":material/compare_arrows:", query_params={"runs": run.id}
        )
        record.edit_button(facts)
        record.report_button(run)
    origin = "imported" if IMPORTED in run.capabilities else ""
    parts = [f"run {run.id}", origin, run.host, formatting.hardware(run), run.git_commit and run.git_commit[:10]]
    st.caption(formatting.escape_markdown(" / ".join(part for part in parts if part)))
    record.note(facts)
    if limits := limits_in(run.capabilities).to_text():
        st.caption(formatting.escape_markdown(f"limits of the trainer: {limits.replace(',', ', ')}"))
    if facts.source.describe():
        st.caption(formatting.escape_markdown(" ".join(facts.source.describe())))


def metrics(facts: RunFacts) -> None:
    run, progress, width = facts.run, facts.progress, METRIC_WIDTH_PIXELS
    with st.container(horizontal=True):
        st.metric(formatting.steps_label(progress.total), formatting.short_count(progress.done), width=width)
        st.metric("Last loss", formatting.number(facts.newest.get("loss")), width=width)
        if facts.verdict.is_training:
            st.metric("Time left", formatting.duration(progress.seconds_left), width=width)
        st.metric("Time per step", formatting.seconds(progress.seconds_per_step), width=width)
        num_open = sum(each.state != IncidentState.CLOSED for each in facts.incidents)
        st.metric("Open incidents", num_open, width=width)
        st.metric("Interventions", len(facts.interventions), width=width)
        if SKIPPED in facts.metrics:
            skipped = cached.line_curves(facts, None, [SKIPPED]).by_metric[SKIPPED]
            st.metric("Skipped updates", num_skipped(skipped), width=width)
        st.metric("Last report", formatting.ago(time.time() - run.last_report_at), width=width)


def details(facts: RunFacts) -> None:
    zone = formatting.zone(st.context.timezone)
    builders: dict[str, Callable[[], pd.DataFrame]] = {
        "Interventions": lambda: tables.interventions(facts),
        "Skip ledger": lambda: tables.skip_ledger(facts),
        "Events": lambda: tables.events(facts),
        "Segments": lambda: tables.segments(facts),
        "Configuration": lambda: tables.configuration(facts, zone),
    }
    # Only the table of the open tab is built.
    tabs = st.tabs(list(builders), key="details", bind="query-params", on_change="rerun")
    for tab, (title, build) in zip(tabs, builders.items(), strict=True):
        if tab.open:
            with tab:
                table(title, tables.in_zone(build(), zone))


def table(title: str, rows: pd.DataFrame) -> None:
    if rows.empty:
        st.caption("None so far.")
    else:
        show_table(rows, key=f"table-{title}")


frame.show_run(page, lower_part=lower_part)
