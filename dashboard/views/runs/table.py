"""The runs as a dense table: one row for each run, or for each group of runs."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import streamlit as st

from dashboard import formatting
from dashboard.data.configurations import setting_text
from dashboard.data.run_list import ListedRun
from dashboard.views.runs import selection
from dashboard.views.runs.columns import Column, number
from dashboard.views.runs.groups import Group
from dashboard.views.runs.listing import state_of
from lossguard.run_tags import tags_of

SPARKLINE = "loss"
"""The metric of the sparkline."""
ROW_PIXELS, MAX_HEIGHT_PIXELS = 35, 700
METRIC_DIGITS, SPREAD_DIGITS, SETTING_DIGITS = 5, 2, 8


@dataclass(slots=True)
class _Table:
    """Columns with how they are shown; a name made of the position keeps equal labels apart."""

    arrays: dict[str, pa.Array] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)

    def add(self, values: Sequence[Any], shown: Any, kind: pa.DataType | None = None) -> None:
        name = f"column {len(self.arrays)}"
        self.arrays[name] = pa.array(values, type=kind)
        self.shown[name] = shown

    def add_values(self, label: str, values: Sequence[Any], digits: int, **options: Any) -> None:
        """Numbers with so many digits; where one is no number, all as text."""
        numbers = [number(value) for value in values]
        if any(found is None and value is not None for found, value in zip(numbers, values, strict=True)):
            texts = [None if value is None else formatting.visible(setting_text(value)) for value in values]
            self.add(texts, st.column_config.TextColumn(label, **options), pa.string())
        elif any(found is not None and not math.isfinite(found) for found in numbers):
            # A browser's table has no NaN and no infinity.
            texts = [None if found is None else _text(found, digits) for found in numbers]
            self.add(texts, st.column_config.TextColumn(label, alignment="right", **options), pa.string())
        else:
            self.add(
                numbers, st.column_config.NumberColumn(label, format=_format(numbers, digits), **options), pa.float64()
            )

    @property
    def data(self) -> pa.Table:
        return pa.table(self.arrays)


def _format(numbers: Sequence[float | None], digits: int) -> str:
    """Whole numbers as they are, others with so many digits."""
    return "%d" if all(each is None or (each.is_integer() and abs(each) < 1e15) for each in numbers) else f"%.{digits}g"


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else formatting.number(value)


def run_table(rows: Sequence[ListedRun], columns: Sequence[Column], now: float) -> tuple[pa.Table, Mapping[str, Any]]:
    """One row for each run, and how its columns are shown. Pure."""
    table, text, config = _Table(), pa.string(), st.column_config
    table.add([formatting.run_title(row.run) for row in rows], config.TextColumn("Run", pinned=True, width=230), text)
    links = [f"run?run={quote(row.run.id, safe='')}" for row in rows]
    opens = config.LinkColumn("Open", display_text=":material/open_in_new:", width=55, help="In a new tab.")
    table.add(links, opens, text)
    table.add([state_of(row.run, row.tally, now) for row in rows], config.TextColumn("State", width=110), text)
    lines = [list(_sparkline(row)) for row in rows]
    shape = "The largest loss of each range of steps, over the whole run."
    table.add(lines, config.LineChartColumn("Loss", width=130, help=shape), pa.list_(pa.float64()))
    table.add([row.summary.steps for row in rows], config.NumberColumn("Steps", format="localized", width=90))
    for column in columns:
        digits = METRIC_DIGITS if column.is_metric else SETTING_DIGITS
        table.add_values(column.label, [column.of(row) for row in rows], digits)
    counts = [row.tally.open_incidents for row in rows]
    table.add(counts, config.NumberColumn("Open incidents", width=110), pa.int64())
    moments = [datetime.fromtimestamp(row.run.last_report_at, UTC) for row in rows]
    reported = config.DatetimeColumn("Last report", format="distance", width=120)
    table.add(moments, reported, pa.timestamp("ms", "UTC"))
    tags = [[formatting.visible(tag) for tag in tags_of(row.run.tags, row.run.config)] for row in rows]
    table.add(tags, config.ListColumn("Tags"), pa.list_(text))
    return table.data, table.shown


def group_table(
    groups: Sequence[Group], by: Sequence[str], columns: Sequence[Column]
) -> tuple[pa.Table, Mapping[str, Any]]:
    """One row for each group: number of runs, then mean, standard deviation and n of each column. Pure."""
    table, config = _Table(), st.column_config
    for place, name in enumerate(by):
        values = [formatting.visible(group.names[place]) for group in groups]
        table.add(values, config.TextColumn(name, pinned=True), pa.string())
    table.add([group.num_runs for group in groups], config.NumberColumn("Runs"), pa.int64())
    for column in columns:
        spreads = [group.spreads[column.label] for group in groups]
        of_finite = f"Of the runs whose {column.label} is a finite number."
        table.add_values(f"{column.label}: mean", [each.mean for each in spreads], METRIC_DIGITS, help=of_finite)
        deviations = [each.deviation for each in spreads]
        table.add_values(f"{column.label}: SD", deviations, SPREAD_DIGITS, help="Standard deviation of the sample.")
        table.add([each.count for each in spreads], config.NumberColumn(f"{column.label}: n", help=of_finite))
    return table.data, table.shown


def show_runs(rows: Sequence[ListedRun], columns: Sequence[Column], now: float) -> None:
    """The table, whose selected rows are the selected runs."""
    ids = [row.run.id for row in rows]
    data, shown = run_table(rows, columns, now)
    # A selection is a list of positions. Under a key made of the order of the runs, no position means another run.
    key = f"runs-{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:16]}"
    selected = set(selection.selected_ids())
    chosen = [place for place, each in enumerate(ids) if each in selected]

    def select() -> None:
        places = st.session_state[key]["selection"]["rows"]
        selection.choose(ids, [ids[place] for place in places if place < len(ids)])

    st.dataframe(
        data, column_config=shown, hide_index=True, key=key, on_select=select, selection_mode="multi-row",
        selection_default={"selection": {"rows": chosen}}, height=_height(len(rows)), placeholder="-", alt="Runs",
    )  # fmt: skip


def show_groups(groups: Sequence[Group], by: Sequence[str], columns: Sequence[Column]) -> None:
    data, shown = group_table(groups, by, columns)
    st.dataframe(
        data, column_config=shown, hide_index=True, height=_height(len(groups)), placeholder="-", alt="Groups of runs"
    )


def _sparkline(row: ListedRun) -> Sequence[float]:
    metric = row.summary.metrics.get(SPARKLINE)
    return () if metric is None else metric.sparkline


def _height(num_rows: int) -> int:
    return min(MAX_HEIGHT_PIXELS, ROW_PIXELS * (num_rows + 1) + 3)
