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


class Kind(Enum):
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
    columns: Mapping[str, Kind]
    """The columns in table order, index first."""

    def kind(self, column: str) -> Kind:
        """Return the type of a column; a column that this release does not know is kept as it comes."""
        return self.columns.get(column, Kind.JSON)


INCIDENTS = Table(
    "number",
    {
        "number": Kind.INTEGER,
        "segment": Kind.INTEGER,
        "kind": Kind.TEXT,
        "state": Kind.TEXT,
        "signal": Kind.TEXT,
        "onset_step": Kind.INTEGER,
        "detected_step": Kind.INTEGER,
        "peak_step": Kind.OPTIONAL_INTEGER,
        "end_step": Kind.OPTIONAL_INTEGER,
        "score": Kind.NUMBER,
        "outcome": Kind.TEXT,
        "details": Kind.JSON,
        "verdict": Kind.JSON,
        "opened_at": Kind.TIME,
        "changed_at": Kind.TIME,
    },
)
INTERVENTIONS = Table(
    "number",
    {
        "number": Kind.INTEGER,
        "incident": Kind.OPTIONAL_INTEGER,
        "kind": Kind.TEXT,
        "state": Kind.TEXT,
        "attempt": Kind.INTEGER,
        "rewind_to": Kind.OPTIONAL_INTEGER,
        "skip_from": Kind.OPTIONAL_INTEGER,
        "skip_to": Kind.OPTIONAL_INTEGER,
        "lr_scale": Kind.NUMBER,
        "remedies": Kind.JSON,
        "details": Kind.JSON,
        "created_at": Kind.TIME,
        "changed_at": Kind.TIME,
        "order_state": Kind.TEXT,
        "rewound_to": Kind.OPTIONAL_INTEGER,
        "answered_at": Kind.TIME,
    },
)
SEGMENTS = Table(
    "number",
    {
        "number": Kind.INTEGER,
        "parent": Kind.OPTIONAL_INTEGER,
        "fork_step": Kind.OPTIONAL_INTEGER,
        "key": Kind.TEXT,
        "reason": Kind.TEXT,
        "order_id": Kind.OPTIONAL_INTEGER,
        "opened_at": Kind.TIME,
        "live_order": Kind.INTEGER,
        "first_step": Kind.OPTIONAL_INTEGER,
        "last_step": Kind.OPTIONAL_INTEGER,
        "num_steps": Kind.INTEGER,
        "live_from": Kind.OPTIONAL_INTEGER,
        "live_to": Kind.OPTIONAL_INTEGER,
    },
)
EVENTS = Table(
    "key",
    {
        "key": Kind.TEXT,
        "segment": Kind.INTEGER,
        "step": Kind.OPTIONAL_INTEGER,
        "time": Kind.TIME,
        "kind": Kind.TEXT,
        "details": Kind.JSON,
    },
)
GOODPUT = Table("cause", {"cause": Kind.TEXT, "seconds": Kind.NUMBER, "share": Kind.NUMBER})
COSTS = Table(
    "segment",
    {
        "segment": Kind.INTEGER,
        "reason": Kind.TEXT,
        "fork_step": Kind.INTEGER,
        "incident": Kind.OPTIONAL_INTEGER,
        "steps": Kind.INTEGER,
        "tokens": Kind.NUMBER,
        "seconds": Kind.NUMBER,
        "first_done_at": Kind.TIME,
        "done_again_at": Kind.TIME,
    },
)
NOTES = Table(
    "id",
    {
        "id": Kind.INTEGER,
        "step": Kind.INTEGER,
        "text": Kind.TEXT,
        "author": Kind.TEXT,
        "created_at": Kind.TIME,
    },
)
SERIES = Table(
    "first_step",
    {
        "first_step": Kind.INTEGER,
        "last_step": Kind.INTEGER,
        "min": Kind.NUMBER,
        "max": Kind.NUMBER,
        "mean": Kind.NUMBER,
        "first": Kind.NUMBER,
        "last": Kind.NUMBER,
        "count": Kind.INTEGER,
        "non_finite": Kind.INTEGER,
    },
)
RUNS = Table(
    "id",
    {
        "id": Kind.TEXT,
        "project": Kind.TEXT,
        "name": Kind.TEXT,
        "state": Kind.TEXT,
        "config": Kind.JSON,
        "command": Kind.TEXT,
        "git_commit": Kind.TEXT,
        "host": Kind.TEXT,
        "devices": Kind.JSON,
        "versions": Kind.JSON,
        "capabilities": Kind.JSON,
        "policy": Kind.JSON,
        "tags": Kind.JSON,
        "note": Kind.TEXT,
        "archived_at": Kind.TIME,
        "total_steps": Kind.OPTIONAL_INTEGER,
        "restorable_steps": Kind.JSON,
        "restorable_tiers": Kind.JSON,
        "started_at": Kind.TIME,
        "last_report_at": Kind.TIME,
        "finished_at": Kind.TIME,
        "lease_process": Kind.TEXT,
        "lease_until": Kind.TIME,
    },
)
