"""Runs: one card per run; what needs a person stands on top."""

import time
from collections.abc import Sequence

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunCard
from dashboard.data.progress import is_silent
from dashboard.views import frame, states
from dashboard.views.runs.listing import Listed, Order, listed, tags_of
from db.overview import Tally

REFRESH_SECONDS = 2.0
PAGE_SIZE = 20
STATES = ("needs a person", "running", "silent", "finished", "interrupted", "failed")
ORDERS = tuple(Order)
PICKED = "picked"  # in the session: ids of the runs to compare, as they were ticked
WIDTH = 155  # pixels of a column: two side by side on a phone

FIRST_STEPS = """\
Start the collector, then any training loop that reports to it:

```bash
python -m monitor serve
LOSSGUARD_URL=http://127.0.0.1:8000 python -m trainer run --recipe tiny
```

In a loop of your own:

```python
import lossguard

run = lossguard.init(project="my-project", config=config)
for step, batch in enumerate(batches):
    ...
    run.log(step, loss=loss, grad_norm=norm)
run.finish()
```

The run appears here with its first report. `make demo` shows all of it in three minutes.
"""


def page() -> None:
    runs = cached.runs()
    if not runs:
        st.subheader("No runs yet")
        st.markdown(FIRST_STEPS)
        return
    found = wished(runs)
    compare_picked()
    shown = st.session_state.setdefault("runs_shown", PAGE_SIZE)
    for run, tally in found[:shown]:
        card = cached.card(run.id)
        if card is not None:
            show(card, tally)
    if not found:
        st.info("No run is like that.", icon=":material/filter_alt_off:")
    if len(found) > shown and st.button(f"Show more of {formatting.plural(len(found), 'run')}"):
        st.session_state["runs_shown"] = shown + PAGE_SIZE
        st.rerun(scope="fragment")


def wished(runs: Sequence[Listed]) -> list[Listed]:
    """What the viewer filtered and sorted."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            "Find", placeholder="project, name, tag, host, device", key="find", bind="query-params", width=300
        )
        states = st.multiselect("State", STATES, placeholder="any", key="state", bind="query-params", width=300)
        known = sorted({tag for run, _ in runs for tag in tags_of(run)})
        tags = st.multiselect("Tags", known, placeholder="any", key="tags", bind="query-params", width=200)
        order = st.selectbox("Sort", ORDERS, key="sort", bind="query-params", width=250)
    return listed(runs, text=text, states=states, tags=tags, order=order, now=time.time())


def compare_picked() -> None:
    """The way to compare the runs that are ticked."""
    picked = st.session_state.setdefault(PICKED, [])
    if picked:
        label = f"**Compare {formatting.plural(len(picked), 'run')}**"
        query = {"runs": ",".join(picked)}
        st.page_link("views/compare/page.py", label=label, icon=":material/compare_arrows:", query_params=query)


def pick(run_id: str) -> None:
    """Take a run among those to compare, or out of them."""
    picked = st.session_state[PICKED]
    st.session_state[PICKED] = [each for each in picked if each != run_id] if run_id in picked else [*picked, run_id]


def show(card: RunCard, tally: Tally) -> None:
    with (
        st.container(border=True, key=f"card-{card.run.pk}"),
        st.container(horizontal=True, vertical_alignment="top"),
    ):
        _name(card, tally)
        _loss(card)
        _progress(card)
        st.metric("Tokens", formatting.abbreviated(card.tokens), width=WIDTH)
        st.metric("Open incidents", tally.open_incidents, width=WIDTH)
        st.metric("Interventions", tally.interventions, width=WIDTH)
        st.metric("Last report", formatting.ago(time.time() - card.run.last_report_at), width=WIDTH)


def _name(card: RunCard, tally: Tally) -> None:
    with st.container(width=280, gap="small"):
        label = formatting.escape_markdown(formatting.run_title(card.run))
        st.page_link("views/run/page.py", label=f"**{label}**", query_params={"run": card.run.id})
        st.caption(
            formatting.escape_markdown(
                " / ".join(filter(None, (card.run.id, card.run.host, formatting.hardware(card.run))))
            )
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            states.run_badge(card.run)
            picked = card.run.id in st.session_state[PICKED]
            st.checkbox("Compare", picked, key=f"pick-{card.run.pk}", on_change=pick, args=(card.run.id,))
            if tally.waiting:
                st.badge("needs a person", color="orange", icon=":material/person_raised_hand:")
            for tag in tags_of(card.run):
                st.badge(formatting.escape_markdown(tag), color="gray", icon=":material/sell:")


def _loss(card: RunCard) -> None:
    help_text = f"Newest step; the line is the last {cached.SPARK_STEPS:,} steps, largest value of each stretch."
    st.metric("Loss", formatting.number(card.loss), chart_data=card.sparkline or None, width=WIDTH, help=help_text)


def _progress(card: RunCard) -> None:
    progress = card.progress
    running = card.run.state == "running" and not is_silent(card.run, time.time()) and progress.seconds_left is not None
    with st.container(width=WIDTH, gap="small"):
        st.metric(formatting.steps_label(progress.total), formatting.count(progress.done))
        if progress.fraction is not None:
            left = f"{formatting.duration(progress.seconds_left)} left" if running else f"{progress.fraction:.0%}"
            st.progress(progress.fraction, text=left)


st.title("Runs")
frame.follow(page, seconds=REFRESH_SECONDS)
