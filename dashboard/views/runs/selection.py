"""The selected runs, in the session, and what can be done with them."""

from collections.abc import Mapping, Sequence

import streamlit as st

from dashboard import formatting
from dashboard.data import run_list, run_pages
from dashboard.data.run_list import ListedRun
from dashboard.data.run_pages import FoundRuns
from dashboard.views.compare.lines import MAX_LINES
from dashboard.views.run import edit, report_download
from dashboard.views.runs import actions
from db.runs.filters import RunFilter
from lossguard.vocabulary.run_search import RunOrder

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


def clear() -> None:
    _replace([])


def _replace(ids: list[str]) -> None:
    st.session_state[SELECTED] = ids
    st.session_state[VERSION] = version() + 1


def bar(found: FoundRuns, where: RunFilter, order: RunOrder, *, hint: bool) -> None:
    """Show the actions on the selected runs. `found`: the runs that match `where`.

    `hint`: whether there is a sentence where none is selected. It keeps the place, so that a table does not move under
    the pointer.
    """
    chosen = run_list.listed(run_pages.named(selected_ids()), ())
    st.session_state[SELECTED] = [row.run.id for row in chosen]  # the others were deleted
    if not chosen and not hint:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="selection", gap="small"):
        if not chosen:
            st.caption("Select runs to compare, tag, archive or delete them.")
            return
        _links(chosen)
        if len(chosen) == 1:
            _single(chosen[0])
        _buttons(chosen)
        num_matching = run_pages.num_matching(where, selected_ids())
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
        on_click=_choose_found,
        args=(where, order),
    )


def _choose_found(where: RunFilter, order: RunOrder) -> None:
    _replace(run_pages.found_ids(where, order, MAX_SELECTED))


def _links(chosen: Sequence[ListedRun]) -> None:
    if len(chosen) > MAX_LINES:
        st.caption(f"**{actions.runs_text(chosen)} selected** (at most {MAX_LINES} can be compared)")
        return
    label = f"**Compare {actions.runs_text(chosen)}**"
    query = {"runs": ",".join(row.run.id for row in chosen)}
    st.page_link("views/compare/page.py", label=label, icon=":material/compare_arrows:", query_params=query)


def _single(row: ListedRun) -> None:
    run, explanation = row.run, "Rename, tag, note or archive this run"
    label = f"Open {formatting.escape_markdown(formatting.run_title(run))}"
    st.page_link("views/run/page.py", label=label, icon=":material/show_chart:", query_params={"run": run.id})
    report_download.button(run, key="report-selected")
    if _button("Edit", ":material/edit:", help=explanation):
        edit.dialog(run)


def _buttons(chosen: Sequence[ListedRun]) -> None:
    archived = [row for row in chosen if row.run.archived_at is not None]
    others = [row for row in chosen if row.run.archived_at is None]
    if _button("Tag", ":material/sell:"):
        actions.tag(chosen)
    if others and _button("Archive", ":material/archive:"):
        actions.archive(others)
    if archived and _button("Restore", ":material/unarchive:"):
        actions.restore(archived)
    if _button("Delete", ":material/delete:"):
        actions.delete(chosen)
    st.button("Clear", key="clear-selected", icon=":material/close:", type="tertiary", on_click=clear)


def _button(label: str, icon: str, *, help: str | None = None) -> bool:
    return st.button(label, key=f"{label.lower()}-selected", icon=icon, type="tertiary", help=help)
