"""Banner of a page while the collector does not answer."""

import time

import streamlit as st

from dashboard import clock, formatting
from dashboard.data import collector_watch
from dashboard.data.collector_watch import Outage
from dashboard.operator_actions import collector_url
from dashboard.views.frame import show_live

REFRESH_SECONDS = 3.0
NO_ADDRESS = (
    "No collector answers at {url}, the default address, so nothing can be decided here. If yours is elsewhere, start "
    "the dashboard with LOSSGUARD_URL."
)


def show() -> None:
    """Show the banner above every page, if the dashboard has the collector's address."""
    if collector_watch.has_address():
        show_live(_show_outage, refresh_seconds=REFRESH_SECONDS)


def _show_outage() -> None:
    outage = collector_watch.outage()
    if outage is not None:
        st.error(sentence(outage), icon=":material/cloud_off:")


def sentence(outage: Outage) -> str:
    """Return the sentence in Markdown."""
    why = formatting.escape_markdown(outage.why)
    since = clock.moment(outage.since, clock.zone(st.context.timezone), now=time.time())
    return (
        f"The collector at {_url()} has not answered since {since} ({why}). Pages show what it had "
        "stored by then, and nothing can be decided. Training continues: trainers keep their steps until it answers."
    )


def show_missing_address() -> None:
    """Warn if a decision or a live run needs a collector, its address is not known, and none answers at the default."""
    if not collector_watch.has_address() and collector_watch.outage() is not None:
        st.caption(NO_ADDRESS.format(url=_url()))


def _url() -> str:
    """Return the URL as code: Markdown would make a link of it."""
    return f"`{collector_url().replace('`', '')}`"
