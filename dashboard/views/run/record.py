"""The record of a run: renamed, tagged, noted or archived by a person, noted at its steps, downloaded as a report.

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
from db.records.step_notes import StepNote
from lossguard.vocabulary.protocol import MAX_SHORT_TEXT, MAX_STEP, MAX_STEP_NOTE, MAX_TEXT
from lossguard.vocabulary.run_search import tags_of
from lossguard.vocabulary.states import RunState

NUM_LISTED_NOTES = 20
"""Notes that are listed unless the viewer asks for all."""
NO_NOTES = "None so far. A note stays at its step, also when the step is discarded."


def edit_button(facts: RunFacts) -> None:
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


def step_notes(facts: RunFacts) -> None:
    """Show the notes of people at steps; the figure has a pin at each of these steps."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Notes", anchor=False, width="content")
        if st.button("Add a note", key="add-note", icon=":material/add_comment:", type="tertiary"):
            frame.dialog("Add a note")(addition)(facts)
    if not facts.notes:
        st.caption(NO_NOTES)
    notes = facts.notes[::-1]
    if len(notes) > NUM_LISTED_NOTES and not st.toggle(f"All {len(notes):,} notes", key="all-notes"):
        notes = notes[:NUM_LISTED_NOTES]
    for each in notes:
        _show_note(facts, each)


def _show_note(facts: RunFacts, note: StepNote) -> None:
    written = formatting.moment(note.created_at, formatting.zone(st.context.timezone))
    with st.container(border=True, key=f"note-{note.id}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**Step {formatting.count(note.step)}**", width="content")
            label = f"Delete the note at step {note.step}"  # before the author, whose name can need a line on a phone
            if st.button("", key=f"delete-note-{note.id}", icon=":material/delete:", type="tertiary", help=label):
                frame.dialog("Delete this note?")(deletion)(facts, note)
            st.caption(f"{formatting.escape_markdown(note.author)} / {written}", width="content")
        st.markdown(_markdown(note.text))


def _markdown(text: str) -> str:
    """Return the text as Markdown with its line breaks."""
    return "  \n".join(map(formatting.escape_markdown, text.splitlines()))


# Neither form asks for a typed word, one press is enough: nothing of the training changes. What is added was typed, and
# what is deleted is in the audit trail.


def addition(facts: RunFacts) -> None:
    action = OperatorAction(
        label="Add",
        question="A note stays at its step, for everybody who sees this run.",
        success="The note was added.",
        path=f"/runs/{facts.run.id}/notes",
    )
    newest = facts.progress.done - 1
    operate.confirmation_form(action, fields=lambda: _note_fields(max(newest, 0)), word="")


def _note_fields(newest: int) -> dict[str, Any]:
    return {
        "text": st.text_area("Note", key="note-text", max_chars=MAX_STEP_NOTE),
        "step": st.number_input(
            "Step", min_value=0, max_value=MAX_STEP - 1, value=None, step=1, key="note-step",
            placeholder=f"the newest one, now {newest:,}",
        ),
    }  # fmt: skip


def deletion(facts: RunFacts, note: StepNote) -> None:
    action = OperatorAction(
        label="Delete",
        question=f"{_markdown(note.text)}\n\nThe audit trail keeps what it said.",
        success="The note was deleted.",
        method="DELETE",
        path=f"/runs/{facts.run.id}/notes/{note.id}",
    )
    operate.confirmation_form(action, word="")
