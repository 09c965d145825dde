"""Shared parts of all pages: refresh rates, the run that the URL names, and messages when there is nothing to show."""

import time
from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached, pending, run_pages
from dashboard.data.facts import RunFacts
from dashboard.data.store import StepsUnreadable, StoreUnavailable
from dashboard.views import run_picker, session, tab
from db.runs.filters import RunFilter
from lossguard.vocabulary.run_search import RunOrder
from lossguard.vocabulary.states import RunState

METRIC_WIDTH_PIXELS = 165  # two metrics fit side by side on a phone

LAST_RUN = "last_run"
"""Key in the session: id of the run shown last. The links at the top of the page name no run."""
OTHER_RUN = "other-run"
"""Key in the session: the choice in the box of `other_runs`."""
LOWER_PART = "lower_part"
"""Key in the session: what the lower part of the page showed last: that of a run by its id."""
LOWER_PART_DELAY_SECONDS = 0.3
RUNNING_REFRESH_SECONDS = 1.3
LOWER_PART_REFRESH_SECONDS = 4.0
IDLE_REFRESH_SECONDS = 15.0  # a run that is not running can be resumed


def show_live(part: Callable[[], None], *, refresh_seconds: float | None, warn: bool = True) -> None:
    """Show a part of the page and refresh it every `refresh_seconds` (None: never), without touching the rest.

    `warn` is False where another part of the page already shows the warning that the store cannot be read; that steps
    cannot be read, each part says for itself.
    """

    def show() -> None:
        if session.has_expired():
            st.rerun()  # of the whole page, which asks for a login
        try:
            part()
        except StoreUnavailable as error:
            if warn or isinstance(error, StepsUnreadable):
                warn_unavailable(error, refreshes=refresh_seconds is not None)

    st.fragment(show, run_every=refresh_seconds)()


def warn_unavailable(error: StoreUnavailable, *, refreshes: bool = True, what: str = "") -> None:
    """Show why something is unavailable, and what becomes of it; `what`: the beginning of the sentence."""
    outlook = error.outlook if refreshes or not error.outlook else "Reload the page to try again."
    st.warning(f"{what}{error} {outlook}".rstrip(), icon=":material/cloud_off:")


def show_parts(facts: RunFacts, parts: Sequence[Callable[[RunFacts], None]]) -> None:
    """Parts of a page, one below the other: instead of one whose steps cannot be read, the reason, each reason once."""
    reasons = set()
    for part in parts:
        try:
            part(facts)
        except StepsUnreadable as error:
            if str(error) not in reasons:
                warn_unavailable(error)
            reasons.add(str(error))


def show_run(page: Callable[[RunFacts], None], *, lower_part: Callable[[RunFacts], None] | None = None) -> None:
    """Show `page` for the run that the URL names (by default the first one of the list), live while it is running.

    `lower_part` is a fragment of its own: it is refreshed less often, and not when a viewer uses a control above it.
    Its first appearance is delayed a little, so that the browser draws the curves first.
    """
    running = _is_running()

    def show_page() -> None:
        run_id = current_run_id()
        facts = None if run_id is None else cached.facts(run_id)
        if facts is None:
            _show_missing(run_id)
            return
        if (facts.run.state == RunState.RUNNING) != running:
            st.rerun()  # the refresh rate changes
        tab.show(facts, waiting=pending.count(facts))
        page(facts)

    def show_lower_part() -> None:
        run_id = url_state.run()
        wait_for_drawing(run_id)
        facts = None if run_id is None else cached.facts(run_id)
        if facts is not None and lower_part is not None:
            lower_part(facts)

    show_live(show_page, refresh_seconds=RUNNING_REFRESH_SECONDS if running else IDLE_REFRESH_SECONDS)
    if lower_part is not None:
        seconds = LOWER_PART_REFRESH_SECONDS if running else IDLE_REFRESH_SECONDS
        show_live(show_lower_part, refresh_seconds=seconds, warn=False)


def wait_for_drawing(shown: str | None) -> None:
    """Wait if the lower part of the page shows something new: the browser draws first what is above it."""
    if st.session_state.get(LOWER_PART) != shown:
        st.session_state[LOWER_PART] = shown
        time.sleep(LOWER_PART_DELAY_SECONDS)


def current_run_id() -> str | None:
    """The run of the URL, else the one shown last, else the first one of the list. Afterwards the URL names it."""
    if url_state.run() is None:
        run_id = st.session_state.get(LAST_RUN) or _first_run_id()
        if run_id is not None:
            url_state.set_run(run_id)
    st.session_state[LAST_RUN] = url_state.run()
    return url_state.run()


def _first_run_id() -> str | None:
    """Return the id of the first run in the list without filters."""
    first = run_pages.found(RunFilter(archived=False), RunOrder.ATTENTION, 1).rows
    return first[0][0].id if first else None


def back_to_run(facts: RunFacts) -> None:
    """A link to the run's page."""
    label = formatting.escape_markdown(formatting.run_title(facts.run))
    st.page_link("views/run/page.py", label=label, icon=":material/arrow_back:", query_params={"run": facts.run.id})


def other_runs() -> None:
    """A button that opens a box with other runs; the page then shows the chosen one."""

    def go() -> None:
        if (chosen := st.session_state.get(OTHER_RUN)) is not None:
            url_state.set_run(chosen)
        st.session_state[OTHER_RUN] = None

    with st.popover("Other runs", icon=":material/swap_horiz:", key="other-runs", on_change="rerun") as other:
        if other.open:
            names = {run.id: formatting.run_label(run) for run in run_picker.offered_runs(key="find-other")}
            st.selectbox("Run", list(names), None, names.__getitem__, key=OTHER_RUN, on_change=go, width=420)


def show_no_runs() -> None:
    st.info("No runs yet.", icon=":material/info:")
    _link_to_all_runs()


def no_such_run(run_id: str) -> str:
    return f"There is no run {formatting.escape_markdown(run_id)} in this store."


def _is_running() -> bool:
    """True if the current run is running. True if the store cannot be read or has no such run, to try again soon."""
    try:
        run_id = current_run_id()
        facts = None if run_id is None else cached.facts(run_id)
    except StoreUnavailable:
        return True
    return facts is None or facts.run.state == RunState.RUNNING


def _show_missing(run_id: str | None) -> None:
    st.session_state.pop(LAST_RUN, None)
    if run_id is None:
        show_no_runs()
        return
    st.warning(no_such_run(run_id), icon=":material/search_off:")
    _link_to_all_runs()


def _link_to_all_runs() -> None:
    st.page_link("views/runs/page.py", label="All runs", icon=":material/arrow_back:")
