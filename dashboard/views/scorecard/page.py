"""Scorecard: what the policy would have done in runs where it gave no orders, and what happened.

In the URL: ?project=..&reported=..&run=..
"""

import time
from collections.abc import Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import run_list
from dashboard.views import chart, frame
from dashboard.views.scorecard import tables
from dashboard.views.table import show_table
from monitor.detection.scorecard import wording
from monitor.detection.scorecard.scored_run import ScoredRun
from monitor.detection.scorecard.totals import PER_HOURS, Totals, total

REFRESH_SECONDS = 15.0
ALL = "all projects"
DAY_SECONDS = 86_400
PERIODS = {"at any time": None, "in the last 30 days": 30, "in the last 7 days": 7}
SITES_RUN = "run-of-sites"
"""Key of the box with the runs that have sites."""
RATE_WIDTH_PIXELS = 360
COLUMN_WIDTH_PIXELS = 230
EXPLANATION = (
    "Runs in observe and approve, and runs that only report: imported ones too. Incidents at one site are judged once. "
    "Hours are estimates. The page `docs/scorecard.md` has every definition."
)
NO_RUNS = (
    "No run to score. Put a run into observe or approve (`lossguard policy RUN set mode=observe`), or import past runs "
    "with `lossguard import`."
)
NO_SITES = "No incident that a policy answers: there is nothing to compare yet."
RATE_HELP = (
    f"False actions per {PER_HOURS:,.0f} GPU-hours: the policy would have acted, nobody did, and the loss came back by "
    "itself. Whether the run was harmed is not measured. The interval is the exact 95% confidence interval of a "
    "Poisson rate; with few hours it is wide."
)
SITES_HELP = (
    "Steps: those that the rollback would have done again, what loading the checkpoint costs, what the skipped batches "
    "are worth, and what was lost in fact. Saved: the last one less the others. Figures are estimated where a past run "
    "stored none, with a checkpoint every 100 steps."
)


def page() -> None:
    names = run_list.projects()
    if not names:
        frame.show_no_runs()
        return
    project, since = controls(names)
    scored, num_auto = tables.scored_runs(project, since)
    if num_auto:
        st.caption(wording.not_scored(num_auto))
    if not scored:
        st.info(NO_RUNS, icon=":material/info:")
        return
    totals = total(scored)
    st.info(formatting.escape_markdown(wording.sentence(totals)), icon=":material/balance:")
    if not totals.sites:
        st.caption(NO_SITES)
        return
    show_totals(totals)
    show_tables(scored, totals)
    show_sites([run for run in scored if run.sites])


def controls(names: Sequence[str]) -> tuple[str | None, float | None]:
    """The project, and the time since when a run must have reported."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        project = st.selectbox("Project", [ALL, *names], key="project", bind="query-params", width=300)
        period = st.selectbox("Runs that reported", list(PERIODS), key="reported", bind="query-params", width=250)
    days = PERIODS[period]
    # Whole days: the time is part of the key of a cache.
    since = None if days is None else (time.time() // DAY_SECONDS - days) * DAY_SECONDS
    return None if project == ALL else project, since


def show_totals(totals: Totals) -> None:
    with st.container(horizontal=True):
        label = f"False actions per {PER_HOURS:,.0f} GPU-hours"
        st.metric(label, wording.rate(totals), width=RATE_WIDTH_PIXELS, help=RATE_HELP)
        came_back = f"{totals.false_actions} of {totals.actions}"
        st.metric("Actions, and it came back by itself", came_back, width=COLUMN_WIDTH_PIXELS)
        agreed = f"{totals.agreed} of {totals.compared}"
        st.metric("Sites where people agreed", agreed, width=COLUMN_WIDTH_PIXELS)
        saved = wording.number_or_dash(totals.gpu_hours_saved)
        st.metric("GPU-hours saved (estimate)", saved, width=COLUMN_WIDTH_PIXELS)


def show_tables(scored: Sequence[ScoredRun], totals: Totals) -> None:
    st.subheader("What happened", anchor=False)
    show_table(tables.endings(totals), key="endings", numbers=tables.NUMBERS)
    st.subheader("Projects", anchor=False)
    show_table(tables.projects(scored), key="projects", numbers=tables.NUMBERS)
    st.subheader("Runs with incidents", anchor=False)
    show_table(tables.runs(scored), key="runs", numbers=tables.NUMBERS)


def show_sites(scored: Sequence[ScoredRun]) -> None:
    by_id = {run.id: run for run in scored}
    st.subheader("Sites of a run", anchor=False)
    # Not bound to the URL: Streamlit takes the parameter of a bound box out of links to other pages.
    named = url_state.run()
    chart.set_widget(SITES_RUN, named if named in by_id else next(iter(by_id)))
    chosen = st.selectbox(
        "Run", list(by_id), key=SITES_RUN, width=400, on_change=lambda: url_state.set_run(st.session_state[SITES_RUN])
    )
    run = by_id[chosen]
    st.page_link("views/run/page.py", label="To the run", icon=":material/show_chart:", query_params={"run": run.id})
    show_table(tables.sites(run), key="sites", numbers=tables.NUMBERS)
    st.caption(SITES_HELP)


st.title("Scorecard", anchor=False)
st.caption(EXPLANATION)
frame.show_live(page, refresh_seconds=REFRESH_SECONDS)
