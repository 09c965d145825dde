"""The record of a run: renamed, tagged, noted or archived by a person, and downloaded as a report.

The collector checks the scope of an edit and writes the audit trail.
"""

import time
from datetime import tzinfo
from functools import partial
from typing import Any

import streamlit as st

from dashboard import formatting
from dashboard.data.facts import RunFacts
from dashboard.data.store import StoreUnavailable
from dashboard.operator_actions import OperatorAction
from dashboard.report import contents, document
from dashboard.views import frame, operate
from db.models import Run
from lossguard.vocabulary.protocol import MAX_SHORT_TEXT, MAX_TEXT
from lossguard.vocabulary.run_search import tags_of
from lossguard.vocabulary.states import RunState


def edit_button(facts: RunFacts) -> None:
    """Opens the form."""
    label, explanation = "Edit", "Rename, tag, note or archive this run"
    if st.button(label, key="edit-run", icon=":material/edit:", type="tertiary", help=explanation):
        edit_dialog(facts.run)


def note(facts: RunFacts) -> None:
    """Show people's note about the run, and its tags."""
    with st.container(horizontal=True):
        for tag in tags_of(facts.run.tags, facts.run.config):
            st.badge(formatting.escape_markdown(tag), color="gray", icon=":material/sell:")
    if facts.run.note:
        st.markdown(formatting.escape_markdown(facts.run.note))


@frame.dialog("Edit the run")
def edit_dialog(run: Run) -> None:
    operate.confirmation_form(
        OperatorAction(
            label="Save",
            question="Only what differs is changed.",
            success="The run was changed.",
            method="PATCH",
            path=f"/runs/{run.id}",
        ),
        fields=lambda: changes(run, _fields(run)),
        word="",  # nothing of the training changes
    )


def _fields(run: Run) -> dict[str, Any]:
    tags = tags_of(run.tags, run.config)
    return {
        "name": st.text_input("Name", run.name or run.id, key="edit-name", max_chars=MAX_SHORT_TEXT),
        "tags": st.multiselect("Tags", tags, tags, key="edit-tags", accept_new_options=True),
        "note": st.text_area("Note", run.note or "", key="edit-note", max_chars=MAX_TEXT),
        "archived": st.checkbox(
            "Archived", run.archived_at is not None, key="edit-archived", disabled=run.state == RunState.RUNNING,
            help="Lists leave out an archived run until it runs again. Only a run that has ended can be archived.",
        ),
    }  # fmt: skip


def changes(run: Run, body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `body` that differ from the run."""
    present = {
        "name": run.name or run.id,
        "tags": tags_of(run.tags, run.config),
        "note": run.note or "",
        "archived": run.archived_at is not None,
    }
    return {name: value for name, value in body.items() if value != present[name]}


def report_button(run: Run, *, key: str = "report-download") -> None:
    """A button that makes the report of the run and downloads it as one HTML file."""
    zone = formatting.zone(st.context.timezone)  # here: what makes the file runs outside the page
    st.download_button(
        "Report",
        partial(report, run.id, zone),
        file_name=f"{run.id}.html",
        mime="text/html",
        key=key,
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help="Summary, curves, incidents and configuration as one file. A long run takes some seconds.",
    )


def report(run_id: str, zone: tzinfo) -> str:
    """The report, or why it cannot be made: of an exception Streamlit would show nothing."""
    try:
        read = contents.read_contents(run_id, now=time.time(), zone=zone)
        return document.render(read, contents.read_incidents(read.facts, read.limits))
    except StoreUnavailable as error:
        return document.refusal(run_id, str(error))
    except contents.NoSuchRun:
        return document.refusal(run_id, "This run is not in the store any more.")
