"""Notes of people at steps of the run: listed, added and deleted. The figure has a pin at each of these steps."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import formatting
from dashboard.data.facts import RunFacts
from dashboard.operator_actions import OperatorAction
from dashboard.views import frame, operate
from db.records.step_notes import StepNote
from lossguard.vocabulary.protocol import MAX_STEP, MAX_STEP_NOTE

NUM_LISTED = 20
"""Notes that are listed unless the viewer asks for all."""
NONE = "None so far. A note stays at its step, also when the step is discarded."


def show(facts: RunFacts) -> None:
    """The part of the page."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Notes", anchor=False, width="content")
        if st.button("Add a note", key="add-note", icon=":material/add_comment:", type="tertiary"):
            frame.dialog("Add a note")(addition)(facts)
    if not facts.notes:
        st.caption(NONE)
    for note in _listed(facts.notes[::-1]):
        _show_note(facts, note)


def _listed(notes: Sequence[StepNote]) -> Sequence[StepNote]:
    if len(notes) <= NUM_LISTED or st.toggle(f"All {len(notes):,} notes", key="all-notes"):
        return notes
    return notes[:NUM_LISTED]


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
    """The form of a new note."""
    action = OperatorAction(
        label="Add",
        question="A note stays at its step, for everybody who sees this run.",
        success="The note was added.",
        path=f"/runs/{facts.run.id}/notes",
    )
    newest = facts.progress.done - 1
    operate.confirmation_form(action, fields=lambda: _fields(max(newest, 0)), word="")


def _fields(newest: int) -> dict[str, Any]:
    return {
        "text": st.text_area("Note", key="note-text", max_chars=MAX_STEP_NOTE),
        "step": st.number_input(
            "Step", min_value=0, max_value=MAX_STEP - 1, value=None, step=1, key="note-step",
            placeholder=f"the newest one, now {newest:,}",
        ),
    }  # fmt: skip


def deletion(facts: RunFacts, note: StepNote) -> None:
    """The form that deletes a note."""
    action = OperatorAction(
        label="Delete",
        question=f"{_markdown(note.text)}\n\nThe audit trail keeps what it said.",
        success="The note was deleted.",
        method="DELETE",
        path=f"/runs/{facts.run.id}/notes/{note.id}",
    )
    operate.confirmation_form(action, word="")
