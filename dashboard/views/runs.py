"""Runs: one card per run; what needs a person stands on top."""

import time

import streamlit as st

from dashboard import data, words
from dashboard.facts import RunCard
from dashboard.views import frame, states

REFRESH_SECONDS = 2.0
PAGE_SIZE = 20
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


def cards() -> None:
    runs = data.ordered_runs()
    if not runs:
        st.subheader("No runs yet")
        st.markdown(FIRST_STEPS)
        return
    shown = st.session_state.setdefault("runs_shown", PAGE_SIZE)
    for run, _ in runs[:shown]:
        found = data.card(run.id)
        if found is not None:
            show(found)
    if len(runs) > shown and st.button(f"Show more of {words.plural(len(runs), 'run')}"):
        st.session_state["runs_shown"] = shown + PAGE_SIZE
        st.rerun(scope="fragment")


def show(card: RunCard) -> None:
    with (
        st.container(border=True, key=f"card-{card.run.pk}"),
        st.container(horizontal=True, vertical_alignment="top"),
    ):
        _name(card)
        _loss(card)
        _progress(card)
        st.metric("Open incidents", card.tally.open_incidents, width=WIDTH)
        st.metric("Interventions", card.tally.interventions, width=WIDTH)
        st.metric("Last report", words.ago(time.time() - card.run.last_report_at), width=WIDTH)


def _name(card: RunCard) -> None:
    with st.container(width=280, gap="small"):
        label = words.escaped(words.run_title(card.run))
        st.page_link("views/run.py", label=f"**{label}**", query_params={"run": card.run.id})
        st.caption(words.escaped(card.run.id))
        with st.container(horizontal=True):
            states.badge(card.run.state)
            if card.tally.waiting:
                st.badge("needs a person", color="orange", icon=":material/person_raised_hand:")


def _loss(card: RunCard) -> None:
    help_text = f"Newest step; the line is the last {data.SPARK_STEPS:,} steps, largest value of each stretch."
    st.metric("Loss", words.number(card.loss), chart_data=card.spark or None, width=WIDTH, help=help_text)


def _progress(card: RunCard) -> None:
    progress = card.progress
    running = card.run.state == "running" and progress.seconds_left is not None
    with st.container(width=WIDTH, gap="small"):
        st.metric(words.steps_label(progress.total), words.steps(progress.done))
        if progress.fraction is not None:
            left = f"{words.duration(progress.seconds_left)} left" if running else f"{progress.fraction:.0%}"
            st.progress(progress.fraction, text=left)


st.title("Runs")
frame.follow(cards, seconds=REFRESH_SECONDS)
