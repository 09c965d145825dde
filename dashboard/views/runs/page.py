"""Runs: as cards or as a table; by default those that need a person come first.

In the URL: ?layout=..&find=..&state=..&tags=..&archived=..&sort=.., and of the table &columns=..&group=..
"""

import time
from collections.abc import Sequence

import streamlit as st

from dashboard import formatting
from dashboard.data import cached, run_list
from dashboard.data.run_list import ListedRun
from dashboard.views import frame, operate, tab
from dashboard.views.runs import cards, filters, listing, selection, table
from dashboard.views.runs.columns import DEFAULT_COLUMNS, HOST, PROJECT, TAG, Column, available, column, setting_names
from dashboard.views.runs.groups import grouped
from db.command_lines import as_typed_here
from lossguard import run_search

REFRESH_SECONDS = {"Cards": 2.0, "Table": 10.0}
PAGE_SIZE = 20
# In the session (Streamlit would show a bare string in a page script, so these are comments):
NUM_SHOWN = "runs_shown"  # number of cards on the page

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
    tab.show(waiting=sum(tally.waiting for run, tally in rows if run.archived_at is None))
    if not rows:
        st.subheader("No runs yet")
        st.markdown(as_typed_here(GETTING_STARTED))
        return
    operate.show_success()
    metrics = run_list.metric_names()
    upper, lower = filters.rows_of_controls()
    with upper:
        search = run_search.parse(filters.search_text())
        filters.fold_button()
    asked = listing.searched_metrics(search, metrics)
    all_runs = run_list.listed(rows, asked)
    with lower:
        columns = column_controls(all_runs, metrics) if layout == "Table" else []
        group_by = group_control(all_runs) if layout == "Table" else []
    with upper:
        chosen = filters.filter_controls(all_runs, columns)
    if columns:
        asked |= {each.name for each in columns if each.is_metric} | {table.SPARKLINE}
        all_runs = run_list.listed(rows, asked)
    unknown = listing.unknown_names(search, all_runs, metrics)
    filters.show_problems([*search.problems, *unknown.values()])
    found = chosen.applied(all_runs, search.without(unknown))
    selection.bar(all_runs, found, hint=layout == "Table" and not group_by)
    if not found:
        st.info("No run matches these filters.", icon=":material/filter_alt_off:")
    elif layout == "Cards":
        show_cards(found)
    elif group_by:
        table.show_groups(grouped(found, by=group_by, columns=columns), group_by, columns)
    else:
        table.show_runs(found, columns, time.time())


def column_controls(rows: Sequence[ListedRun], metrics: Sequence[str]) -> list[Column]:
    """The columns of the table that a viewer chooses."""
    offered = available(rows, metrics)
    default = [name for name in DEFAULT_COLUMNS if name in offered]
    labels = st.multiselect(
        "Columns", offered, default, key="columns", bind="query-params", width=600,
        accept_new_options=True, help="Settings by path, and the last, smallest or largest value of metrics.",
    )  # fmt: skip
    return [column(label) for label in labels]


def group_control(rows: Sequence[ListedRun]) -> list[str]:
    names = dict.fromkeys([PROJECT, TAG, HOST, *setting_names(rows)])
    chosen: list[str] = st.multiselect(
        "Group by", list(names), placeholder="nothing", key="group", bind="query-params", width=400,
        accept_new_options=True, help="Mean, standard deviation and n of each column over the runs of a group.",
    )  # fmt: skip
    return chosen


def show_cards(found: Sequence[ListedRun]) -> None:
    num_shown = st.session_state.setdefault(NUM_SHOWN, PAGE_SIZE)
    shown = found[:num_shown]
    for row, card in zip(shown, cached.cards([row.run for row in shown]), strict=True):
        cards.show(card, row.tally)
    if len(found) > num_shown and st.button(f"Show more ({num_shown} of {formatting.plural(len(found), 'run')})"):
        st.session_state[NUM_SHOWN] = num_shown + PAGE_SIZE
        st.rerun(scope="fragment")


with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title("Runs", width="content")
    layout = st.segmented_control(
        "Layout", list(REFRESH_SECONDS), default="Cards", required=True, key="layout", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
frame.show_live(page, refresh_seconds=REFRESH_SECONDS[layout])
