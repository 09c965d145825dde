"""The report of a run as a download: made when the button is pressed, never with the page."""

import time

import streamlit as st

from dashboard import clock
from dashboard.report import contents, document
from db.models import Run


def button(run: Run, *, key: str = "report-download") -> None:
    """A button that makes the report of the run and downloads it as one HTML file."""
    zone = clock.zone(st.context.timezone)  # here: what makes the file runs outside the page

    def report() -> str:
        read = contents.read_contents(run.id, now=time.time(), zone=zone)
        return document.render(read, contents.read_incidents(read.facts, read.limits))

    st.download_button(
        "Report",
        report,
        file_name=f"{run.id}.html",
        mime="text/html",
        key=key,
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help="Summary, curves, incidents and configuration as one file. A long run takes some seconds.",
    )
