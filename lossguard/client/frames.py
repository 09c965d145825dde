"""Tables that the client returns: pandas frames, or dicts of columns where pandas is not installed."""

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from lossguard.client.tables import ColumnType, Table
from lossguard.vocabulary.protocol import decode_number

Frame = Any
"""A pandas DataFrame; without pandas, a dict of columns: name -> list, the index first."""

OWN_COLUMNS = ("step", "segment", "live", "time")
"""Columns of steps that are not metrics."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def has(package: str) -> bool:
    """Return True if a package can be imported."""
    return importlib.util.find_spec(package) is not None


def steps_of_table(table: Any) -> Frame:
    """Steps from a pyarrow table; a null is a value that was not reported."""
    from lossguard.client.pandas_frames import step_frame

    own = {name: table[name].to_numpy() for name in OWN_COLUMNS}
    metrics = {name: table[name] for name in table.column_names if name not in own}
    return step_frame(
        own,
        {
            name: (column.to_numpy(), column.is_valid().to_numpy() if column.null_count else None)
            for name, column in metrics.items()
        },
    )


def steps_of_lists(columns: Mapping[str, list[Any]]) -> Frame:
    """Steps from lists; None is a value that was not reported."""
    if not has("pandas"):
        own = {name: columns[name] for name in OWN_COLUMNS} | {"time": list(map(_time, columns["time"]))}
        return own | {name: values for name, values in columns.items() if name not in own}
    import numpy as np

    from lossguard.client.pandas_frames import step_frame

    return step_frame(
        {name: np.array(columns[name], dtype=kind) for name, kind in zip(OWN_COLUMNS, "qq?d", strict=True)},
        {
            name: (
                np.array(values, dtype=np.float64),
                np.array([value is not None for value in values], dtype=np.bool_),
            )
            for name, values in columns.items()
            if name not in OWN_COLUMNS
        },
    )


def table_of(table: Table, rows: Sequence[Mapping[str, Any]]) -> Frame:
    """Rows as they come from the API, without the key that the store gives them where they have a number.

    A column that a collector of another release leaves out is missing in every row.
    """
    names = dict.fromkeys([*table.columns, *(name for row in rows for name in row if name != "id")])
    return table_of_columns(table, {name: [row.get(name) for row in rows] for name in names})


def table_of_columns(table: Table, columns: Mapping[str, list[Any]]) -> Frame:
    """Columns as they come from the API, in the order of `table`; what it does not name comes last."""
    names = [name for name in dict.fromkeys([*table.columns, *columns]) if name in columns]
    decoded = {name: _decoded(table.kind(name), columns[name]) for name in names}
    if not has("pandas"):
        times = {name for name in names if table.kind(name) is ColumnType.TIME}
        return {name: list(map(_time, values)) if name in times else values for name, values in decoded.items()}
    from lossguard.client.pandas_frames import table_frame

    return table_frame(table, decoded)


def _decoded(kind: ColumnType, values: list[Any]) -> list[Any]:
    return list(map(decode_number, values)) if kind in (ColumnType.NUMBER, ColumnType.TIME) else values


def _time(seconds: float | None) -> datetime | None:
    """Unix seconds as a time, to the microsecond."""
    return None if seconds is None else EPOCH + timedelta(microseconds=round(seconds * 1e6))
