"""The report of a run as a download: made when the button is pressed, never with the page."""

import time
from datetime import tzinfo
from functools import partial

import streamlit as st

from dashboard import clock
from dashboard.data.store import StoreUnavailable
from dashboard.report import contents, document
from db.models import Run


def button(run: Run, *, key: str = "report-download") -> None:
    """A button that makes the report of the run and downloads it as one HTML file."""
    zone = clock.zone(st.context.timezone)  # here: what makes the file runs outside the page
    st.download_button(
        "Report",
        partial(page, run.id, zone),
        file_name=f"{run.id}.html",
        mime="text/html",
        key=key,
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help="Summary, curves, incidents and configuration as one file. A long run takes some seconds.",
    )


def page(run_id: str, zone: tzinfo) -> str:
    """The report, or why it cannot be made: of an exception Streamlit would show nothing."""
    try:
        read = contents.read_contents(run_id, now=time.time(), zone=zone)
        return document.render(read, contents.read_incidents(read.facts, read.limits))
    except StoreUnavailable as error:
        return document.refusal(run_id, str(error))
