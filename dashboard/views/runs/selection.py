"""The selected runs, in the session, and what can be done with them."""

from collections.abc import Sequence

import streamlit as st

from dashboard import formatting
from dashboard.data.run_list import ListedRun
from dashboard.views.run import edit, report_download
from dashboard.views.runs import actions

SELECTED = "selected_runs"
"""In the session: ids of the selected runs, in the order in which they were selected."""


def selected_ids() -> list[str]:
    ids: list[str] = st.session_state.setdefault(SELECTED, [])
    return ids


def toggle(run_id: str) -> None:
    ids = selected_ids()
    st.session_state[SELECTED] = [each for each in ids if each != run_id] if run_id in ids else [*ids, run_id]


def choose(shown: Sequence[str], chosen: Sequence[str]) -> None:
    """Select `chosen` of the runs that are shown; what is selected of the others stays."""
    others = [each for each in selected_ids() if each not in shown]
    kept = [each for each in selected_ids() if each in chosen]
    st.session_state[SELECTED] = [*others, *kept, *(each for each in chosen if each not in kept)]


def clear() -> None:
    st.session_state[SELECTED] = []


def bar(rows: Sequence[ListedRun], shown: Sequence[ListedRun], *, hint: bool) -> None:
    """What can be done with the selected runs. `rows`: all runs of the store; `shown`: those that the filters leave.

    `hint`: whether there is a sentence where none is selected. It keeps the place, so that a table does not move under
    the pointer.
    """
    by_id = {row.run.id: row for row in rows}
    st.session_state[SELECTED] = [each for each in selected_ids() if each in by_id]  # the others were deleted
    chosen = [by_id[each] for each in selected_ids()]
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
        hidden = {row.run.id for row in chosen} - {row.run.id for row in shown}
        if hidden:
            st.caption(f"{len(hidden)} not shown")


def _links(chosen: Sequence[ListedRun]) -> None:
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
