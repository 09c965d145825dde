"""The tables that a collector answers with, and the names of columns in CSV."""

import re
from collections.abc import Mapping
from enum import StrEnum

# Names of columns in a CSV file.
#
# A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@` as a formula. Cells below the header are numbers, but
# a metric may have any name: such a name gets an apostrophe before it, and loses it when it is read.

_FORMULA = re.compile(r"[' ]*[=+\-@]")


def safe_name(column: str) -> str:
    """The name of a column as no spreadsheet takes it for a formula."""
    return f"'{column}" if _FORMULA.match(column) else column


def original_name(column: str) -> str:
    """Undo `safe_name`."""
    return column[1:] if column.startswith("'") and _FORMULA.match(column) else column


# Tables: their columns, and the kind of value in each.


class ColumnType(StrEnum):
    """The type of a column's values."""

    INTEGER = "integer"  # none of them missing
    OPTIONAL_INTEGER = "integer?"
    NUMBER = "number"  # float64; missing ones are NaN
    TIME = "time"  # unix seconds on the wire
    TEXT = "text"
    JSON = "json"


Table = Mapping[str, ColumnType]
"""Columns of rows of one kind, in the order of the frame; the first one is its index."""


def _table(columns: str) -> Table:
    return {name: ColumnType(kind) for name, kind in (column.split() for column in columns.split(","))}


INCIDENTS = _table(
    "number integer, segment integer, kind text, state text, signal text, onset_step integer, detected_step integer,"
    "peak_step integer?, end_step integer?, score number, outcome text, details json, verdict json, opened_at time,"
    "changed_at time"
)
INTERVENTIONS = _table(
    "number integer, incident integer?, kind text, state text, attempt integer, rewind_to integer?, skip_from integer?,"
    "skip_to integer?, lr_scale number, remedies json, details json, created_at time, changed_at time,"
    "order_state text, rewound_to integer?, answered_at time"
)
SEGMENTS = _table(
    "number integer, parent integer?, fork_step integer?, key text, reason text, order_id integer?, opened_at time,"
    "live_order integer, first_step integer?, last_step integer?, num_steps integer, live_from integer?,"
    "live_to integer?"
)
EVENTS = _table("key text, segment integer, step integer?, time time, kind text, details json")
GOODPUT = _table("cause text, seconds number, share number")
COSTS = _table(
    "segment integer, reason text, fork_step integer, incident integer?, steps integer, tokens number, seconds number,"
    "first_done_at time, done_again_at time"
)
NOTES = _table("id integer, step integer, text text, author text, created_at time")
SERIES = _table(
    "first_step integer, last_step integer, min number, max number, mean number, first number, last number,"
    "count integer, non_finite integer"
)
RUNS = _table(
    "id text, project text, name text, state text, config json, command text, git_commit text, host text,"
    "devices json, versions json, capabilities json, policy json, tags json, note text, archived_at time,"
    "total_steps integer?, restorable_steps json, restorable_tiers json, started_at time, last_report_at time,"
    "finished_at time, lease_process text, lease_until time"
)
