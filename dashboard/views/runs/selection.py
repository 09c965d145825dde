"""The selected runs, in the session, and what can be done with them: compare, tag, archive, restore or delete them.

The collector gets one request for each run, checks the scope and writes the audit trail.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import formatting
from dashboard.data import run_list
from dashboard.data.run_list import FoundRuns, ListedRun
from dashboard.operator_actions import OperatorAction
from dashboard.views import frame, operate
from dashboard.views.compare.controls import MAX_LINES
from dashboard.views.run import record
from db.runs.filters import RunFilter
from lossguard.vocabulary.run_search import RunOrder, tags_of
from lossguard.vocabulary.states import RunState

MAX_NAMED = 10
"""Runs that a dialog names; it counts the others."""


def runs_text(rows: Sequence[ListedRun]) -> str:
    return formatting.plural(len(rows), "run")


@frame.dialog("Tag the selected runs")
def tag(rows: Sequence[ListedRun]) -> None:
    present = sorted({each for row in rows for each in tags_of(row.run.tags, row.run.config)})

    def fields() -> dict[str, Any]:
        return {
            "add": st.multiselect("Add tags", present, key="tag-add", accept_new_options=True),
            "remove": st.multiselect("Remove tags", present, key="tag-remove"),
        }

    action = OperatorAction(
        "Tag", f"{_names(rows)}\n\nOther tags stay.", f"Tags of {runs_text(rows)} changed.", "/runs", "PATCH"
    )
    ids = [row.run.id for row in rows]

    def requests(form: OperatorAction) -> list[OperatorAction]:
        return tag_requests(run_list.listed(run_list.named(ids), ()), form.body)  # as they are tagged by now

    operate.confirmation_form(action, fields=fields, requests=requests)


def tag_requests(rows: Sequence[ListedRun], body: Any) -> list[OperatorAction]:
    """Return a request for each run whose tags change."""
    requests = []
    for row in rows:
        old = tags_of(row.run.tags, row.run.config)
        new = [each for each in dict.fromkeys([*old, *body["add"]]) if each not in body["remove"]]
        if new != old:
            requests.append(_request(row, "PATCH", {"tags": new}))
    return requests


@frame.dialog("Archive the selected runs")
def archive(rows: Sequence[ListedRun]) -> None:
    _confirm(rows, "Archive", "Lists leave out an archived run until it runs again.", "PATCH", {"archived": True})


@frame.dialog("Restore the selected runs")
def restore(rows: Sequence[ListedRun]) -> None:
    _confirm(rows, "Restore", "Lists show them again.", "PATCH", {"archived": False})


@frame.dialog("Delete the selected runs")
def delete(rows: Sequence[ListedRun]) -> None:
    steps = formatting.plural(sum(row.summary.stored_steps for row in rows), "step")
    incidents = formatting.plural(sum(row.tally.incidents for row in rows), "incident")
    interventions = formatting.plural(sum(row.tally.interventions for row in rows), "intervention")
    says = (
        f"**This cannot be undone.** It deletes {steps}, {incidents} and {interventions}, with their probes and events."
    )
    if running := sum(row.run.state == RunState.RUNNING for row in rows):
        says += f" {formatting.plural(running, 'run is', 'runs are')} still running."
    run = rows[0].run
    can_be_typed = run.name and run.name.isprintable() and run.name.split()
    name = run.name if can_be_typed else run.id
    _confirm(rows, "Delete", says, "DELETE", {}, word=name if len(rows) == 1 else f"delete {runs_text(rows)}")


def _confirm(
    rows: Sequence[ListedRun], label: str, says: str, method: str, body: dict[str, Any], word: str | None = None
) -> None:
    done = {"Archive": "archived", "Restore": "restored", "Delete": "deleted"}[label]
    action = OperatorAction(label, f"{_names(rows)}\n\n{says}", f"{runs_text(rows)} {done}.", "/runs", method)
    operate.confirmation_form(action, word=word, requests=lambda _: [_request(row, method, body) for row in rows])


def _request(row: ListedRun, method: str, body: dict[str, Any]) -> OperatorAction:
    """Return the request, labelled by the run for the sentence about a failure."""
    return OperatorAction(formatting.run_title(row.run), "", "", f"/runs/{row.run.id}", method, body)


def _names(rows: Sequence[ListedRun]) -> str:
    names = [formatting.run_label(row.run) for row in rows]
    return formatting.bullet_list(formatting.first_named(names, MAX_NAMED))


SELECTED = "selected_runs"
"""Key in the session: ids of the selected runs, in the order in which they were selected."""
VERSION = "selection_version"
"""Key in the session: how often the selection was replaced as a whole. The changes of an
earlier version do not count: they were on their way meanwhile, and would undo it."""
MAX_SELECTED = 1_000
"""Runs that "Select all" selects."""


def selected_ids() -> list[str]:
    ids: list[str] = st.session_state.setdefault(SELECTED, [])
    return ids


def version() -> int:
    number: int = st.session_state.setdefault(VERSION, 0)
    return number


def toggle(run_id: str, at_version: int) -> None:
    """Select the run, or no longer."""
    if at_version != version():
        return
    ids = selected_ids()
    st.session_state[SELECTED] = [each for each in ids if each != run_id] if run_id in ids else [*ids, run_id]


def change(changes: Mapping[str, bool], at_version: int) -> None:
    """Select the runs with these ids, or no longer; the others stay as they are."""
    if at_version != version():
        return
    kept = [each for each in selected_ids() if changes.get(each, True)]
    added = [run_id for run_id, is_selected in changes.items() if is_selected and run_id not in kept]
    st.session_state[SELECTED] = [*kept, *added]


def _replace(ids: list[str]) -> None:
    st.session_state[SELECTED] = ids
    st.session_state[VERSION] = version() + 1


def bar(found: FoundRuns, where: RunFilter, order: RunOrder, *, hint: bool) -> None:
    """Show the actions on the selected runs. `found`: the runs that match `where`.

    `hint`: whether there is a sentence where none is selected. It keeps the place, so that a table does not move under
    the pointer.
    """
    chosen = run_list.listed(run_list.named(selected_ids()), ())
    st.session_state[SELECTED] = [row.run.id for row in chosen]  # the others were deleted
    if not chosen and not hint:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="selection", gap="small"):
        if not chosen:
            st.caption("Select runs to compare, tag, archive or delete them.")
            return
        if len(chosen) > MAX_LINES:
            st.caption(f"**{runs_text(chosen)} selected** (at most {MAX_LINES} can be compared)")
        else:
            label, query = f"**Compare {runs_text(chosen)}**", {"runs": ",".join(row.run.id for row in chosen)}
            st.page_link("views/compare/page.py", label=label, icon=":material/compare_arrows:", query_params=query)
        _buttons(chosen)
        num_matching = run_list.num_matching(where, selected_ids())
        _select_all(found, num_matching, where, order)
        if len(chosen) > num_matching:
            st.caption(f"{len(chosen) - num_matching} not shown")


def _select_all(found: FoundRuns, num_selected: int, where: RunFilter, order: RunOrder) -> None:
    """Offer to select all runs that match, up to MAX_SELECTED, if they are more than the list shows."""
    if found.total <= max(len(found.rows), num_selected) or num_selected >= MAX_SELECTED:
        return
    all_of_them = found.total <= MAX_SELECTED
    label = f"Select all {found.total:,}" if all_of_them else f"Select the first {MAX_SELECTED:,} of {found.total:,}"
    st.button(
        label,
        key="select-all",
        icon=":material/select_all:",
        type="tertiary",
        on_click=lambda: _replace(run_list.found_ids(where, order, MAX_SELECTED)),
    )


def _buttons(chosen: Sequence[ListedRun]) -> None:
    if len(chosen) == 1:
        run = chosen[0].run
        label = f"Open {formatting.escape_markdown(formatting.run_title(run))}"
        st.page_link("views/run/page.py", label=label, icon=":material/show_chart:", query_params={"run": run.id})
        record.report_button(run, key="report-selected")
        if _button("Edit", ":material/edit:", help="Rename, tag, note or archive this run"):
            record.edit_dialog(run)
    archived = [row for row in chosen if row.run.archived_at is not None]
    others = [row for row in chosen if row.run.archived_at is None]
    if _button("Tag", ":material/sell:"):
        tag(chosen)
    if others and _button("Archive", ":material/archive:"):
        archive(others)
    if archived and _button("Restore", ":material/unarchive:"):
        restore(archived)
    if _button("Delete", ":material/delete:"):
        delete(chosen)
    st.button("Clear", key="clear-selected", icon=":material/close:", type="tertiary", on_click=_replace, args=([],))


def _button(label: str, icon: str, *, help: str | None = None) -> bool:
    return st.button(label, key=f"{label.lower()}-selected", icon=icon, type="tertiary", help=help)
