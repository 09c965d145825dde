"""Runs: one card per run; by default those that need a person come first.

In the URL: ?find=..&state=..&tags=..&archived=..&sort=..
"""

import time
from collections.abc import Sequence

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunCard
from dashboard.data.progress import is_silent
from dashboard.views import frame, states, tab
from dashboard.views.runs.listing import STATES, RunRow, SortOrder, filtered, tags_of
from db.command_lines import as_typed_here
from db.overview import Tally
from lossguard.states import RunState

REFRESH_SECONDS = 2.0
PAGE_SIZE = 20
SORT_ORDERS = tuple(SortOrder)
COLUMN_WIDTH_PIXELS = 155  # two columns fit side by side on a phone
# In the session (Streamlit would show a bare string in a page script, so these are comments):
NUM_SHOWN = "runs_shown"  # number of cards on the page
SELECTED = "selected_runs"  # ids of the runs to compare, in the order of the ticks

GETTING_STARTED = """\
Start the collector, then any training loop that reports to it:

```bash
python -m monitor serve
LOSSGUARD_URL=http://127.0.0.1:8000 python -m trainer run --recipe tiny
```

In your own loop:

```python
import lossguard

run = lossguard.init(project="my-project", config=config)
for step, batch in enumerate(batches):
    ...
    run.log(step, loss=loss, grad_norm=norm)
run.finish()
```

The run appears here after its first report. `make demo` shows everything in three minutes.
"""


def page() -> None:
    rows = cached.runs()
    tab.show(waiting=sum(tally.waiting for _, tally in rows))
    if not rows:
        st.subheader("No runs yet")
        st.markdown(as_typed_here(GETTING_STARTED))
        return
    found = filter_controls(rows)
    compare_link()
    num_shown = st.session_state.setdefault(NUM_SHOWN, PAGE_SIZE)
    for run, tally in found[:num_shown]:
        card = cached.card(run.id)
        if card is not None:
            show_card(card, tally)
    if not found:
        st.info("No run matches these filters.", icon=":material/filter_alt_off:")
    if len(found) > num_shown and st.button(f"Show more ({num_shown} of {formatting.plural(len(found), 'run')})"):
        st.session_state[NUM_SHOWN] = num_shown + PAGE_SIZE
        st.rerun(scope="fragment")


def filter_controls(rows: Sequence[RunRow]) -> list[RunRow]:
    """The runs that match the viewer's filters, in the chosen order."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            "Search", placeholder="project, name, tag, note, host, device", key="find", bind="query-params", width=300
        )
        states = st.multiselect("State", STATES, placeholder="any", key="state", bind="query-params", width=300)
        all_tags = sorted({tag for run, _ in rows for tag in tags_of(run)})
        tags = st.multiselect("Tags", all_tags, placeholder="any", key="tags", bind="query-params", width=200)
        archived = st.toggle("Archived", key="archived", bind="query-params", help="Show archived runs too.")
        order = st.selectbox("Sort", SORT_ORDERS, key="sort", bind="query-params", width=250)
    return filtered(rows, text=text, states=states, tags=tags, order=order, archived=archived, now=time.time())


def compare_link() -> None:
    selected = st.session_state.setdefault(SELECTED, [])
    if selected:
        label = f"**Compare {formatting.plural(len(selected), 'run')}**"
        query = {"runs": ",".join(selected)}
        st.page_link("views/compare/page.py", label=label, icon=":material/compare_arrows:", query_params=query)


def toggle_selected(run_id: str) -> None:
    selected = st.session_state[SELECTED]
    st.session_state[SELECTED] = (
        [each for each in selected if each != run_id] if run_id in selected else [*selected, run_id]
    )


def show_card(card: RunCard, tally: Tally) -> None:
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
            is_selected = run.id in st.session_state[SELECTED]
            st.checkbox("Compare", is_selected, key=f"select-{run.pk}", on_change=toggle_selected, args=(run.id,))
            states.needs_a_person(run, tally.waiting)
            if run.archived_at is not None:
                st.badge("archived", color="gray", icon=":material/inventory_2:")
            for tag in tags_of(run):
                st.badge(formatting.escape_markdown(tag), color="gray", icon=":material/sell:")


def _loss(card: RunCard) -> None:
    help_text = f"At the newest step. The line shows the largest values of the last {cached.SPARKLINE_STEPS:,} steps."
    loss = formatting.number(card.loss)
    st.metric("Loss", loss, chart_data=card.sparkline or None, width=COLUMN_WIDTH_PIXELS, help=help_text)


def _progress(card: RunCard) -> None:
    progress = card.progress
    is_running = card.run.state == RunState.RUNNING and not is_silent(card.run, time.time())
    with st.container(width=COLUMN_WIDTH_PIXELS, gap="small"):
        st.metric(formatting.steps_label(progress.total), formatting.short_count(progress.done))
        if progress.fraction is not None:
            has_time_left = is_running and progress.seconds_left is not None
            left = f"{formatting.duration(progress.seconds_left)} left" if has_time_left else f"{progress.fraction:.0%}"
            st.progress(progress.fraction, text=left)


st.title("Runs")
frame.show_live(page, refresh_seconds=REFRESH_SECONDS)
