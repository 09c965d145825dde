"""The tables that a collector answers with, and the names of columns in CSV."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

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


class ColumnType(Enum):
    """The type of a column's values."""

    INTEGER = auto()
    """Whole numbers, none of them missing."""
    OPTIONAL_INTEGER = auto()
    NUMBER = auto()
    """float64; missing ones are NaN."""
    TIME = auto()
    """Unix seconds on the wire."""
    TEXT = auto()
    JSON = auto()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind."""

    index: str
    columns: Mapping[str, ColumnType]
    """The columns in table order, index first."""

    def kind(self, column: str) -> ColumnType:
        """Return the type of a column; a column that this release does not know is kept as it comes."""
        return self.columns.get(column, ColumnType.JSON)


INCIDENTS = Table(
    "number",
    {
        "number": ColumnType.INTEGER,
        "segment": ColumnType.INTEGER,
        "kind": ColumnType.TEXT,
        "state": ColumnType.TEXT,
        "signal": ColumnType.TEXT,
        "onset_step": ColumnType.INTEGER,
        "detected_step": ColumnType.INTEGER,
        "peak_step": ColumnType.OPTIONAL_INTEGER,
        "end_step": ColumnType.OPTIONAL_INTEGER,
        "score": ColumnType.NUMBER,
        "outcome": ColumnType.TEXT,
        "details": ColumnType.JSON,
        "verdict": ColumnType.JSON,
        "opened_at": ColumnType.TIME,
        "changed_at": ColumnType.TIME,
    },
)
INTERVENTIONS = Table(
    "number",
    {
        "number": ColumnType.INTEGER,
        "incident": ColumnType.OPTIONAL_INTEGER,
        "kind": ColumnType.TEXT,
        "state": ColumnType.TEXT,
        "attempt": ColumnType.INTEGER,
        "rewind_to": ColumnType.OPTIONAL_INTEGER,
        "skip_from": ColumnType.OPTIONAL_INTEGER,
        "skip_to": ColumnType.OPTIONAL_INTEGER,
        "lr_scale": ColumnType.NUMBER,
        "remedies": ColumnType.JSON,
        "details": ColumnType.JSON,
        "created_at": ColumnType.TIME,
        "changed_at": ColumnType.TIME,
        "order_state": ColumnType.TEXT,
        "rewound_to": ColumnType.OPTIONAL_INTEGER,
        "answered_at": ColumnType.TIME,
    },
)
SEGMENTS = Table(
    "number",
    {
        "number": ColumnType.INTEGER,
        "parent": ColumnType.OPTIONAL_INTEGER,
        "fork_step": ColumnType.OPTIONAL_INTEGER,
        "key": ColumnType.TEXT,
        "reason": ColumnType.TEXT,
        "order_id": ColumnType.OPTIONAL_INTEGER,
        "opened_at": ColumnType.TIME,
        "live_order": ColumnType.INTEGER,
        "first_step": ColumnType.OPTIONAL_INTEGER,
        "last_step": ColumnType.OPTIONAL_INTEGER,
        "num_steps": ColumnType.INTEGER,
        "live_from": ColumnType.OPTIONAL_INTEGER,
        "live_to": ColumnType.OPTIONAL_INTEGER,
    },
)
EVENTS = Table(
    "key",
    {
        "key": ColumnType.TEXT,
        "segment": ColumnType.INTEGER,
        "step": ColumnType.OPTIONAL_INTEGER,
        "time": ColumnType.TIME,
        "kind": ColumnType.TEXT,
        "details": ColumnType.JSON,
    },
)
GOODPUT = Table("cause", {"cause": ColumnType.TEXT, "seconds": ColumnType.NUMBER, "share": ColumnType.NUMBER})
COSTS = Table(
    "segment",
    {
        "segment": ColumnType.INTEGER,
        "reason": ColumnType.TEXT,
        "fork_step": ColumnType.INTEGER,
        "incident": ColumnType.OPTIONAL_INTEGER,
        "steps": ColumnType.INTEGER,
        "tokens": ColumnType.NUMBER,
        "seconds": ColumnType.NUMBER,
        "first_done_at": ColumnType.TIME,
        "done_again_at": ColumnType.TIME,
    },
)
NOTES = Table(
    "id",
    {
        "id": ColumnType.INTEGER,
        "step": ColumnType.INTEGER,
        "text": ColumnType.TEXT,
        "author": ColumnType.TEXT,
        "created_at": ColumnType.TIME,
    },
)
SERIES = Table(
    "first_step",
    {
        "first_step": ColumnType.INTEGER,
        "last_step": ColumnType.INTEGER,
        "min": ColumnType.NUMBER,
        "max": ColumnType.NUMBER,
        "mean": ColumnType.NUMBER,
        "first": ColumnType.NUMBER,
        "last": ColumnType.NUMBER,
        "count": ColumnType.INTEGER,
        "non_finite": ColumnType.INTEGER,
    },
)
RUNS = Table(
    "id",
    {
        "id": ColumnType.TEXT,
        "project": ColumnType.TEXT,
        "name": ColumnType.TEXT,
        "state": ColumnType.TEXT,
        "config": ColumnType.JSON,
        "command": ColumnType.TEXT,
        "git_commit": ColumnType.TEXT,
        "host": ColumnType.TEXT,
        "devices": ColumnType.JSON,
        "versions": ColumnType.JSON,
        "capabilities": ColumnType.JSON,
        "policy": ColumnType.JSON,
        "tags": ColumnType.JSON,
        "note": ColumnType.TEXT,
        "archived_at": ColumnType.TIME,
        "total_steps": ColumnType.OPTIONAL_INTEGER,
        "restorable_steps": ColumnType.JSON,
        "restorable_tiers": ColumnType.JSON,
        "started_at": ColumnType.TIME,
        "last_report_at": ColumnType.TIME,
        "finished_at": ColumnType.TIME,
        "lease_process": ColumnType.TEXT,
        "lease_until": ColumnType.TIME,
    },
)
