"""The runs as a dense table: one row for each run, or for each group of runs.

The table is HTML of its own: Streamlit's grid takes the browser half a second to load, and is made anew whenever other
runs are shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import streamlit as st

from dashboard import formatting
from dashboard.data.comparison.configurations import setting_text
from dashboard.data.run_list import ListedRun
from dashboard.views.runs import selection
from dashboard.views.runs.cards import points
from dashboard.views.runs.columns import STEPS, Column, Group, number
from dashboard.views.runs.filters import SORT, SortOrder, orders_of
from lossguard.vocabulary.protocol import encode_number
from lossguard.vocabulary.run_search import tags_of

HERE = Path(__file__).parent
KEY = "runs-table"
SPARKLINE = "loss"
"""The metric of the sparkline."""
METRIC_DIGITS, SPREAD_DIGITS, SETTING_DIGITS = 5, 2, 8

_component = st.components.v2.component(
    "lossguard_runs",
    html='<div class="runs"></div>',
    css=(HERE / "table.css").read_text(encoding="utf-8"),
    js=(HERE / "table.js").read_text(encoding="utf-8"),
)


class CellFormat(StrEnum):
    """Format in which table.js draws the cells of a column."""

    TEXT = "text"
    NUMBER = "number"
    LINE = "line"  # corners of a sparkline; the table is not sorted by it
    TAGS = "tags"  # a list of texts


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column as the browser draws it: text as it is, never markup."""

    label: str
    kind: CellFormat
    cells: Sequence[str | Sequence[str] | None]
    """Cells of the column; None: the run has no value."""
    values: Sequence[float | str | None] = ()
    """Keys to sort by instead of the cells: numbers, as `encode_number` writes them, before texts."""
    help: str = ""
    orders: Sequence[tuple[str, str]] = ()
    """See `filters.orders_of`; without any, the table has all rows there are, and the browser sorts them."""


def run_table(rows: Sequence[ListedRun], columns: Sequence[Column], now: float) -> list[TableColumn]:
    """One row for each run. Pure."""
    shape = "The largest loss of each range of steps, over the whole run."
    reported = [row.run.last_report_at for row in rows]
    ago = [formatting.ago(now - moment) for moment in reported]
    tags = [[formatting.visible(tag) for tag in tags_of(row.run.tags, row.run.config)] for row in rows]
    table = [
        TableColumn("Run", CellFormat.TEXT, [formatting.run_title(row.run) for row in rows]),
        TableColumn("State", CellFormat.TEXT, [row.verdict.headline for row in rows]),
        TableColumn("Loss", CellFormat.LINE, [_line(row) for row in rows], help=shape),
        _counts(STEPS, [row.summary.steps for row in rows]),
        *(_chosen(column, rows) for column in columns),
        _counts("Open incidents", [row.tally.open_incidents for row in rows]),
        TableColumn("Last report", CellFormat.NUMBER, ago, [encode_number(moment) for moment in reported]),
    ]
    sorted_by = [
        each if each.kind is CellFormat.LINE else replace(each, orders=orders_of(each.label)) for each in table
    ]
    return [*sorted_by, TableColumn("Tags", CellFormat.TAGS, tags)]


def group_table(groups: Sequence[Group], by: Sequence[str], columns: Sequence[Column]) -> list[TableColumn]:
    """One row for each group: number of runs, then mean, standard deviation and n of each column. Pure."""
    table = [
        TableColumn(name, CellFormat.TEXT, [formatting.visible(group.names[place]) for group in groups])
        for place, name in enumerate(by)
    ]
    table.append(_counts("Runs", [group.num_runs for group in groups]))
    for column in columns:
        spreads = [group.spreads[column.label] for group in groups]
        of_finite = f"Of the runs whose {column.label} is a finite number."
        deviation = "Standard deviation of the sample."
        table += [
            values_column(f"{column.label}: mean", [each.mean for each in spreads], METRIC_DIGITS, help=of_finite),
            values_column(f"{column.label}: SD", [each.deviation for each in spreads], SPREAD_DIGITS, help=deviation),
            _counts(f"{column.label}: n", [each.count for each in spreads], help=of_finite),
        ]
    return table


def values_column(label: str, values: Sequence[Any], digits: int, *, help: str = "") -> TableColumn:
    """Return numbers with the given digits; if one is no number, all as text."""
    numbers = [number(value) for value in values]
    if all(found is not None or value is None for found, value in zip(numbers, values, strict=True)):
        written = _format(numbers, digits)
        cells = [None if found is None else _text(found, written) for found in numbers]
        return TableColumn(label, CellFormat.NUMBER, cells, [encode_number(found) for found in numbers], help)
    texts = [None if value is None else formatting.visible(setting_text(value)) for value in values]
    keys = [text if found is None else encode_number(found) for found, text in zip(numbers, texts, strict=True)]
    return TableColumn(label, CellFormat.TEXT, texts, keys, help)


def _format(numbers: Sequence[float | None], digits: int) -> str:
    """Return whole numbers as they are, others with the given digits."""
    finite = [each for each in numbers if each is not None and math.isfinite(each)]
    return ".0f" if all(each.is_integer() and abs(each) < 1e15 for each in finite) else f".{digits}g"


def _text(value: float, written: str) -> str:
    return format(value, written) if math.isfinite(value) else formatting.number(value)


def show_runs(rows: Sequence[ListedRun], columns: Sequence[Column], order: str, now: float) -> None:
    """The table in this order, whose selected rows are the selected runs."""
    ids = [row.run.id for row in rows]
    selected = set(selection.selected_ids())
    runs = {
        "ids": ids,
        "links": [f"run?run={quote(run_id, safe='')}" for run_id in ids],
        "selected": [each for each in ids if each in selected],
        "version": selection.version(),
        "order": order,
    }
    _show("Runs", run_table(rows, columns, now), runs)


def show_groups(groups: Sequence[Group], by: Sequence[str], columns: Sequence[Column]) -> None:
    _show("Groups of runs", group_table(groups, by, columns), {})


def _show(label: str, table: Sequence[TableColumn], runs: Mapping[str, Any]) -> None:
    data = {"label": label, "columns": [asdict(column) for column in table], **runs}
    _component(data=data, key=KEY, on_changes_change=_change_selection, on_order_change=_change_order)


def _change_order() -> None:
    """A click on a header; after the last of its orders, the first one of the list."""
    st.session_state[SORT] = st.session_state[KEY].get("order") or next(iter(SortOrder))


def _change_selection() -> None:
    """Update the selection with the viewer's changes since the table last showed that of the session."""
    reported = st.session_state[KEY].get("changes")
    if reported:
        changes = {str(run_id): bool(is_selected) for run_id, is_selected in reported["runs"]}
        selection.change(changes, reported["version"])


def _chosen(column: Column, rows: Sequence[ListedRun]) -> TableColumn:
    digits = METRIC_DIGITS if column.is_metric else SETTING_DIGITS
    return values_column(column.label, [column.of(row) for row in rows], digits)


def _counts(label: str, counts: Sequence[int], *, help: str = "") -> TableColumn:
    return TableColumn(label, CellFormat.NUMBER, [formatting.count(each) for each in counts], counts, help)


def _line(row: ListedRun) -> str | None:
    metric = row.summary.metrics.get(SPARKLINE)
    return None if metric is None or not metric.sparkline else points(metric.sparkline)
