"""Names of columns in a CSV file.

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@` as a formula. Cells below the header are numbers, but a
metric may have any name: such a name gets an apostrophe before it, and loses it when it is read.
"""

import re

_FORMULA = re.compile(r"[' ]*[=+\-@]")


def safe_name(column: str) -> str:
    """The name of a column as no spreadsheet takes it for a formula."""
    return f"'{column}" if _FORMULA.match(column) else column


def original_name(column: str) -> str:
    """Undo `safe_name`."""
    return column[1:] if column.startswith("'") and _FORMULA.match(column) else column
