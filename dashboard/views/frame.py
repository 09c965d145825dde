"""The frame of every page: the viewer and the tab, refresh rates, the run that the URL names, and messages.

Without a login the viewer is nobody in particular; with one, a page is shown to those who may read.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec

import streamlit as st

from dashboard import formatting, login, url_state
from dashboard.data import cached, collector_watch, pending, run_list
from dashboard.data.facts import RunFacts
from dashboard.data.store import StepsUnreadable, StoreUnavailable
from dashboard.login import LOGIN_VARIABLE, Login, Right, Viewer
from dashboard.operator_actions import collector_url
from dashboard.views import run_picker
from db.runs.filters import RunFilter
from lossguard.vocabulary.run_search import RunOrder
from lossguard.vocabulary.states import RunState

P = ParamSpec("P")


@cache
def _login(path: str) -> Login:
    return login.read(Path(path))


def has_login() -> bool:
    return bool(os.environ.get(LOGIN_VARIABLE))


def viewer() -> Viewer | None:
    """The person who has logged in; None without a login, and for somebody who has not."""
    if not has_login() or not st.user.get("is_logged_in"):
        return None
    return login.viewer(_login(os.environ[LOGIN_VARIABLE]), st.user.to_dict())


def has_expired() -> bool:
    """True if viewers log in, and the login of this one has ended."""
    person = viewer()
    return has_login() and (person is None or person.has_expired)


def require_reader() -> None:
    """Ask for a login, or refuse, and stop the script, unless the viewer may read; else show who it is."""
    if not has_login():
        return
    person = viewer()
    if person is None or person.has_expired:
        st.title("Lossguard")
        st.markdown("Log in to see the runs." if person is None else "Your login has expired.")
        st.button("Log in", on_click=st.login, type="primary", icon=":material/login:", key="log-in")
        st.stop()
    name = formatting.escape_markdown(person.name)
    if Right.READ not in person.rights:
        st.title("Lossguard")
        st.error(
            f"{name}: none of your groups may read here. Ask whoever runs this dashboard.", icon=":material/block:"
        )
        st.button("Log out", on_click=st.logout, icon=":material/logout:", key="log-out")
        st.stop()
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        st.caption(name, width="content")
        st.button("Log out", on_click=st.logout, icon=":material/logout:", key="log-out", type="tertiary")


APP = "Lossguard"
ICON, ICON_WAITING = (str(Path(__file__).parents[1] / name) for name in ("icon.svg", "icon-waiting.svg"))
TAB_PAGE = "tab_page"
"""Key in the session: title of the page."""
TAB_SHOWN = "tab_shown"
"""Key in the session: title and icon as they were last sent."""


def open_page(page: str) -> None:
    """A page begins, without a dialog: its name until it says more."""
    st.session_state[TAB_PAGE] = page
    st.session_state.pop(DIALOG_OPEN, None)
    _send_tab(f"{page} - {APP}", ICON)


def show_tab(facts: RunFacts | None = None, *, waiting: int = 0) -> None:
    """Name the run and its verdict, and how many decisions wait for a person; again when they have changed."""
    page = st.session_state.get(TAB_PAGE, APP)
    name = page if facts is None else f"{facts.verdict.headline} - {page} {formatting.run_title(facts.run)}"
    title = f"({waiting:,}) {name} - {APP}" if waiting else f"{name} - {APP}"
    icon = ICON_WAITING if waiting else ICON
    if st.session_state.get(TAB_SHOWN) != (title, icon):
        _send_tab(title, icon)


def _send_tab(title: str, icon: str) -> None:
    st.set_page_config(page_title=title, page_icon=icon)
    st.session_state[TAB_SHOWN] = (title, icon)


DIALOG_OPEN = "dialog_open"
"""Key in the session: True while a dialog is open."""


def dialog(title: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a function a dialog, as `st.dialog` does; when it is closed, the whole page is run again.

    Only then Streamlit forgets what was typed, which must not be in the next one, about another run; and nothing looks
    after the closed one any more.
    """

    def decorate(contents: Callable[P, None]) -> Callable[P, None]:
        @wraps(contents)
        def show(*args: P.args, **kwargs: P.kwargs) -> None:
            st.session_state[DIALOG_OPEN] = True
            try:
                contents(*args, **kwargs)
            except StoreUnavailable as error:
                warn_unavailable(error, refreshes=False)

        return st.dialog(title, on_dismiss=st.rerun)(show)

    return decorate


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
        if has_expired():
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
    try:
        run_id = current_run_id()
        facts = None if run_id is None else cached.facts(run_id)
        running = facts is None or facts.run.state == RunState.RUNNING
    except StoreUnavailable:
        running = True  # as for a run that is not in the store: try again soon

    def show_page() -> None:
        run_id = current_run_id()
        facts = None if run_id is None else cached.facts(run_id)
        if facts is None:
            st.session_state.pop(LAST_RUN, None)
            if run_id is None:
                show_no_runs()
            else:
                st.warning(no_such_run(run_id), icon=":material/search_off:")
                _link_to_all_runs()
            return
        if (facts.run.state == RunState.RUNNING) != running and DIALOG_OPEN not in st.session_state:
            st.rerun()  # the refresh rate changes; a dialog would be closed
        show_tab(facts, waiting=pending.count(facts))
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
        if not (run_id := st.session_state.get(LAST_RUN)):  # empty: a link had `?run=`
            first = run_list.found(RunFilter(archived=False), RunOrder.ATTENTION, 1).rows
            run_id = first[0].run.id if first else None
        if run_id is not None:
            url_state.set_run(run_id)
    st.session_state[LAST_RUN] = url_state.run()
    return url_state.run()


def back_to_run(facts: RunFacts) -> None:
    label = formatting.escape_markdown(formatting.run_title(facts.run))
    st.page_link("views/run/page.py", label=label, icon=":material/arrow_back:", query_params={"run": facts.run.id})


def other_runs() -> None:
    """A button that opens a box with other runs; the page then shows the chosen one."""

    def go() -> None:
        chosen, st.session_state[OTHER_RUN] = st.session_state.get(OTHER_RUN), None
        if chosen is not None:
            url_state.change_run(chosen)
            st.rerun()  # also of the lower part

    with st.popover("Other runs", icon=":material/swap_horiz:", key="other-runs", on_change="rerun") as other:
        if other.open:
            names = {run.id: formatting.run_label(run) for run in run_picker.offered_runs(key="find-other")}
            st.selectbox("Run", list(names), None, names.__getitem__, key=OTHER_RUN, on_change=go, width=420)


def show_no_runs() -> None:
    st.info("No runs yet.", icon=":material/info:")
    _link_to_all_runs()


def no_such_run(run_id: str) -> str:
    return f"There is no run {formatting.escape_markdown(run_id)} in this store."


def _link_to_all_runs() -> None:
    st.page_link("views/runs/page.py", label="All runs", icon=":material/arrow_back:")


BANNER_REFRESH_SECONDS = 3.0
NO_ADDRESS = (
    "No collector answers at {url}, the default address, so nothing can be decided here. If yours is elsewhere, start "
    "the dashboard with LOSSGUARD_URL."
)


def show_banner() -> None:
    """Show the banner above every page, if the dashboard has the collector's address."""
    if collector_watch.has_address():
        show_live(_show_outage, refresh_seconds=BANNER_REFRESH_SECONDS)


def _show_outage() -> None:
    outage = collector_watch.outage()
    if outage is None:
        return
    why = formatting.escape_markdown(outage.why)
    since = formatting.moment(outage.since, formatting.zone(st.context.timezone), now=time.time())
    st.error(
        f"The collector at {_collector()} has not answered since {since} ({why}). Pages show what it had "
        "stored by then, and nothing can be decided. Training continues: trainers keep their steps until it answers.",
        icon=":material/cloud_off:",
    )


def show_missing_address() -> None:
    """Warn if a decision or a live run needs a collector, its address is not known, and none answers at the default."""
    if not collector_watch.has_address() and collector_watch.outage() is not None:
        st.caption(NO_ADDRESS.format(url=_collector()))


def _collector() -> str:
    """Return the URL as code: Markdown would make a link of it."""
    return f"`{collector_url().replace('`', '')}`"
