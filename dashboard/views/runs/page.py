"""Runs: as cards or as a table; by default those that need a person come first.

In the URL: ?layout=..&find=..&project=..&state=..&tags=..&archived=..&sort=.., and of the table &columns=..&group=..
"""

import time
from collections.abc import Sequence

import streamlit as st

from dashboard.data import run_list
from dashboard.data.run_list import FoundRuns, ListedRun
from dashboard.operator_actions import collector_url
from dashboard.views import frame, operate
from dashboard.views.run_picker import search_box, show_problems
from dashboard.views.runs import cards, filters, selection, table
from dashboard.views.runs.columns import (
    DEFAULT_COLUMNS,
    HOST,
    PROJECT,
    TAG,
    Column,
    available,
    column,
    grouped,
    ordered,
)
from dashboard.views.runs.filters import Filters
from db.cli.command_engine import as_typed_here
from lossguard.vocabulary import run_search

REFRESH_SECONDS = {"Cards": 2.0, "Table": 10.0}
NUM_FIRST_CARDS = 4  # as many as a window shows: they are drawn before the others
# In the session (Streamlit would show a bare string in a page script, so these are comments):
NUM_SHOWN = {"Cards": "runs_shown", "Table": "rows_shown"}  # number of runs on the page

GETTING_STARTED = """\
In the environment that you train in, with the address of the collector (and `LOSSGUARD_TOKEN`, if it asks for one):

```bash
pip install lossguard
export LOSSGUARD_URL={url}
```

A script that logs to Weights & Biases, TensorBoard, MLflow or trackio, or prints its loss, is watched as it is:

```bash
lossguard launch -- python train.py
```

A loop of your own is also rolled back when its loss spikes:

```python
import lossguard
from lossguard.torch import Checkpoints

run = lossguard.init(project="my-project", config=config)
checkpoints = Checkpoints(f"out/{{run.id}}", model=model, optimizer=optimizer)
guard = lossguard.Guard(run, checkpoints=checkpoints)
for step, batch in guard.steps(loader, until=10_000):
    ...
    run.log(step, loss=loss, grad_norm=norm)
run.finish()
```

A run appears here after its first report. For a try without a loop of your own, train the small model that comes along:

```bash
LOSSGUARD_URL={url} python -m trainer run --recipe tiny
```
"""


def page() -> None:
    frame.show_tab(waiting=run_list.num_waiting())
    if not run_list.num_runs():
        st.subheader("No runs yet")
        st.markdown(as_typed_here(GETTING_STARTED.format(url=collector_url())))
        return
    operate.show_success()
    is_table = layout == "Table"
    metrics = run_list.metric_names()
    upper, lower = filters.rows_of_controls()
    with upper:
        example = "words, lr>1e-3, state:running, .."
        search = run_search.parse(search_box("Search", key="find", placeholder=example, bind="query-params"))
        filters.fold_button()
    unknown = filters.unknown_names(search, metrics)
    with lower:
        columns = column_controls(metrics) if is_table else []
        group_by = group_control() if is_table else []
    with upper:
        labels = [each.label for each in columns] if is_table and not group_by else None
        chosen = filters.filter_controls(run_list.projects(), run_list.tags(), labels)
    show_problems([*search.problems, *unknown.values()])
    where = chosen.where(search.without(unknown))
    reads_many = bool(group_by) or chosen.by_column
    num_shown = st.session_state.setdefault(NUM_SHOWN[layout], filters.PAGE_SIZE[layout])
    found = run_list.found(where, chosen.run_order, filters.MAX_READ if reads_many else num_shown)
    selection.bar(found, where, chosen.run_order, hint=is_table and not group_by)
    if reads_many and found.total > filters.MAX_READ:
        what = "in groups" if group_by else "sorted"
        sentence = f"Only the {filters.MAX_READ:,} newest of the {found.total:,} runs found are {what}."
        st.info(f"{sentence} Narrow the search or the filters to include them all.", icon=":material/filter_list:")
    if not found.rows:
        st.info("No run matches these filters.", icon=":material/filter_alt_off:")
    elif not is_table:
        show_cards(found)
        show_more(found.total, num_shown)
    elif group_by:
        rows = run_list.listed(found.rows, metrics_of(columns))
        table.show_groups(grouped(rows, by=group_by, columns=columns), group_by, columns)
    else:
        table.show_runs(rows_of_table(found, chosen, columns, num_shown), columns, chosen.order, time.time())
        show_more(found.total if not reads_many else len(found.rows), num_shown)


def column_controls(metrics: Sequence[str]) -> list[Column]:
    offered = available(run_list.settings(), metrics)
    default = [name for name in DEFAULT_COLUMNS if name in offered]
    labels = st.multiselect(
        "Columns", offered, default, key="columns", bind="query-params", width=600,
        accept_new_options=True, select_all=False,
        help="Settings by path, and the last, smallest or largest value of metrics.",
    )  # fmt: skip
    return [column(label) for label in labels]


def group_control() -> list[str]:
    names = dict.fromkeys([PROJECT, TAG, HOST, *available(run_list.settings(), ())])
    chosen: list[str] = st.multiselect(
        "Group by", list(names), placeholder="nothing", key="group", bind="query-params", width=400,
        accept_new_options=True, select_all=False,
        help="Mean, standard deviation and n of each column over the runs of a group.",
    )  # fmt: skip
    return chosen


def metrics_of(columns: Sequence[Column]) -> set[str]:
    return {each.name for each in columns if each.is_metric}


def rows_of_table(found: FoundRuns, chosen: Filters, columns: Sequence[Column], num_shown: int) -> list[ListedRun]:
    """Return rows in order, with all values that the table shows. Sorting needs the values of one column."""
    rows = found.rows
    if chosen.by_column:
        by, descending = chosen.column, chosen.order.endswith(filters.DOWN)
        rows = ordered(run_list.listed(rows, metrics_of([by])), by, descending=descending)[:num_shown]
    return run_list.listed(rows, metrics_of(columns) | {table.SPARKLINE})


def show_cards(found: FoundRuns) -> None:
    shown = run_list.cards([row.run for row in found.rows])
    for place, (row, card) in enumerate(zip(found.rows, shown, strict=True)):
        if place == NUM_FIRST_CARDS:
            frame.wait_for_drawing("cards")
        cards.show(row, card)


def show_more(total: int, num_shown: int) -> None:
    """A button, where there are more runs."""

    def more() -> None:
        st.session_state[NUM_SHOWN[layout]] = num_shown + filters.PAGE_SIZE[layout]

    if total > num_shown:
        label = f"Show more ({num_shown:,} of {total:,} runs)"
        st.button(label, key=f"more-{layout}", on_click=more)


with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title("Runs", width="content")
    layout = st.segmented_control(
        "Layout", list(REFRESH_SECONDS), default="Cards", required=True, key="layout", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
frame.show_live(page, refresh_seconds=REFRESH_SECONDS[layout])
