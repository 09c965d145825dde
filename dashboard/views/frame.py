"""What every page has in common: it follows the store at a pace, and says plainly when the store is away."""

import time
from collections.abc import Callable

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import StoreUnavailable
from dashboard.views.runs.listing import listed

LAST_RUN = "last_run"
"""In the session: the links on top of the page name no run."""
BELOW_OF = "below_of"
"""In the session: the run whose lower part has been shown."""
HEAD_START = 0.3
LIVE_SECONDS = 1.3
BELOW_SECONDS = 4.0
QUIET_SECONDS = 15.0  # a run that is not running can be taken up again: it is looked at now and then


def follow(page: Callable[[], None], *, seconds: float | None, quiet: bool = False) -> None:
    """Show `page` now and again every so many seconds (None: once), without touching what a viewer does on it.

    A part that is `quiet` leaves it to another one to say that the store is away.
    """

    def shown() -> None:
        try:
            page()
        except StoreUnavailable as away:
            if not quiet:
                st.warning(f"{away} This page goes on by itself then.", icon=":material/cloud_off:")

    st.fragment(shown, run_every=seconds)()


def follow_run(page: Callable[[RunFacts], None], *, below: Callable[[RunFacts], None] | None = None) -> None:
    """Show `page` of the run that the URL names (the top one of the list when it names none), live while it runs.

    What stands `below` it is looked at less often, and is left alone by what a viewer does above. At first it comes a
    moment later: the browser then draws the curves before it.
    """
    running = _is_running()

    def shown() -> None:
        run_id = chosen_run()
        facts = None if run_id is None else cached.facts(run_id)
        if facts is None:
            _nothing_to_show(run_id)
            return
        if (facts.run.state == "running") != running:
            st.rerun()  # another pace from here on
        page(facts)

    def shown_below() -> None:
        run_id = url_state.run()
        if st.session_state.get(BELOW_OF) != run_id:
            st.session_state[BELOW_OF] = run_id
            time.sleep(HEAD_START)
        facts = None if run_id is None else cached.facts(run_id)
        if facts is not None and below is not None:
            below(facts)

    follow(shown, seconds=LIVE_SECONDS if running else QUIET_SECONDS)
    if below is not None:
        follow(shown_below, seconds=BELOW_SECONDS if running else QUIET_SECONDS, quiet=True)


def chosen_run() -> str | None:
    """The run of the URL, else the one last looked at, else the top one of the list; the URL names it from then on."""
    if url_state.run() is None:
        last = st.session_state.get(LAST_RUN)
        top = [last] if last is not None else [run.id for run, _ in listed(cached.runs(), now=time.time())]
        if top:
            url_state.choose_run(top[0])
    st.session_state[LAST_RUN] = url_state.run()
    return url_state.run()


def _is_running() -> bool:
    """Whether the chosen run is running; True while the store is away or the run not there, to look again soon."""
    try:
        run_id = chosen_run()
        facts = None if run_id is None else cached.facts(run_id)
    except StoreUnavailable:
        return True
    return facts is None or facts.run.state == "running"


def _nothing_to_show(run_id: str | None) -> None:
    st.session_state.pop(LAST_RUN, None)
    if run_id is None:
        st.info("No runs yet.", icon=":material/info:")
    else:
        st.warning(no_such_run(run_id), icon=":material/search_off:")
    st.page_link("views/runs/page.py", label="All runs", icon=":material/arrow_back:")


def no_such_run(run_id: str) -> str:
    return f"There is no run {formatting.escape_markdown(run_id)} in this store."
