"""Actions of an operator on the selected runs: tag, archive, restore or delete them.

The collector gets one request for each run, checks the scope and writes the audit trail.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import formatting
from dashboard.data.run_list import ListedRun
from dashboard.operator_actions import OperatorAction
from dashboard.views import operate
from lossguard.vocabulary.run_search import tags_of
from lossguard.vocabulary.states import RunState

MAX_NAMED = 10
"""Runs that a dialog names; it counts the others."""


def runs_text(rows: Sequence[ListedRun]) -> str:
    """Return the number of runs as text: "2 runs"."""
    return formatting.plural(len(rows), "run")


@st.dialog("Tag the selected runs")
def tag(rows: Sequence[ListedRun]) -> None:
    present = sorted({each for row in rows for each in tags_of(row.run.tags, row.run.config)})

    def fields() -> dict[str, Any]:
        return {
            "add": st.multiselect("Add tags", present, key="tag-add", accept_new_options=True),
            "remove": st.multiselect("Remove tags", present, key="tag-remove"),
        }

    action = OperatorAction(
        "Tag", f"{_names(rows)}\n\nOther tags stay.", f"Tags of {runs_text(rows)} changed.", "PATCH", "/runs"
    )
    operate.confirmation_form(action, fields=fields, requests=lambda form: tag_requests(rows, form.body))


def tag_requests(rows: Sequence[ListedRun], body: Any) -> list[OperatorAction]:
    """Return a request for each run whose tags change."""
    requests = []
    for row in rows:
        old = tags_of(row.run.tags, row.run.config)
        new = [each for each in dict.fromkeys([*old, *body["add"]]) if each not in body["remove"]]
        if new != old:
            requests.append(_request(row, "PATCH", {"tags": new}))
    return requests


@st.dialog("Archive the selected runs")
def archive(rows: Sequence[ListedRun]) -> None:
    _confirm(rows, "Archive", "Lists leave out an archived run until it runs again.", "PATCH", {"archived": True})


@st.dialog("Restore the selected runs")
def restore(rows: Sequence[ListedRun]) -> None:
    _confirm(rows, "Restore", "Lists show them again.", "PATCH", {"archived": False})


@st.dialog("Delete the selected runs")
def delete(rows: Sequence[ListedRun]) -> None:
    _confirm(rows, "Delete", _what_goes(rows), "DELETE", {}, word=_word_to_delete(rows))


def _confirm(
    rows: Sequence[ListedRun], label: str, says: str, method: str, body: dict[str, Any], word: str | None = None
) -> None:
    done = {"Archive": "archived", "Restore": "restored", "Delete": "deleted"}[label]
    action = OperatorAction(label, f"{_names(rows)}\n\n{says}", f"{runs_text(rows)} {done}.", method, "/runs")
    operate.confirmation_form(action, word=word, requests=lambda _: [_request(row, method, body) for row in rows])


def _request(row: ListedRun, method: str, body: dict[str, Any]) -> OperatorAction:
    """Return the request, labelled by the run for the sentence about a failure."""
    return OperatorAction(formatting.run_title(row.run), "", "", method, f"/runs/{row.run.id}", body)


def _names(rows: Sequence[ListedRun]) -> str:
    """A list in Markdown."""
    names = [formatting.run_label(row.run) for row in rows]
    return formatting.bullet_list(formatting.first_named(names, MAX_NAMED))


def _what_goes(rows: Sequence[ListedRun]) -> str:
    steps = formatting.plural(sum(row.summary.stored_steps for row in rows), "step")
    incidents = formatting.plural(sum(row.tally.incidents for row in rows), "incident")
    interventions = formatting.plural(sum(row.tally.interventions for row in rows), "intervention")
    text = (
        f"**This cannot be undone.** It deletes {steps}, {incidents} and {interventions}, with their probes and events."
    )
    running = sum(row.run.state == RunState.RUNNING for row in rows)
    return text + (f" {formatting.plural(running, 'run is', 'runs are')} still running." if running else "")


def _word_to_delete(rows: Sequence[ListedRun]) -> str:
    """The name of the run, where a person can type it; of several their number."""
    if len(rows) > 1:
        return f"delete {runs_text(rows)}"
    run = rows[0].run
    return run.name if run.name and run.name.isprintable() and run.name.split() else run.id
