"""Columns as pandas frames: those of the client, and those that the store reads (`db.frames`), made alike.

Dtypes do not depend on the rows: whole numbers are int64, or Int64 where some may be missing; other numbers float64;
times datetime64[us, UTC]; texts str (object under pandas 2); JSON object.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lossguard.client.tables import ColumnType, Table
from lossguard.vocabulary.protocol import encode_number

TEXT: Any = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object
"""Before pandas 3, a `str` column does not know what is missing."""
MAX_SECONDS = 9e12
"""Beyond it, datetime64[us] overflows."""


def step_frame(own: Mapping[str, Any], metrics: Mapping[str, tuple[Any, Any]]) -> pd.DataFrame:
    """Steps with their metrics, from columns of equal length N.

    `own` has `step` int64[N], `segment` int[N], `live` bool[N] and `time` float64[N] in unix seconds. Of each metric
    there are float64[N], and bool[N] which of them were reported, or None where all were. A metric with values that
    were not finite has a second column `<metric>_non_finite`, because NaN stands for what was not reported, too.
    """
    columns: dict[str, Any] = {"segment": np.asarray(own["segment"], dtype=np.int64), "live": own["live"]}
    columns["time"] = to_times(own["time"])
    for name, (values, reported) in metrics.items():
        columns[name] = values
        non_finite = ~np.isfinite(values)
        if reported is not None:
            non_finite &= reported
        if non_finite.any():
            columns[f"{name}_non_finite"] = _marks(values, non_finite)
    return pd.DataFrame(columns, index=pd.Index(own["step"], name="step"))


def _marks(values: Any, non_finite: Any) -> Any:
    """ "NaN", "Infinity" or "-Infinity" where a value was reported and is not finite; else missing."""
    texts = np.full(len(values), None, dtype=object)
    texts[non_finite] = [encode_number(value) for value in values[non_finite].tolist()]
    return pd.array(texts, dtype=TEXT)


def table_frame(table: Table, columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Rows as a frame; a column that the table does not name is kept as it is."""
    made = {name: cells(table.get(name, ColumnType.JSON), values) for name, values in columns.items()}
    return pd.DataFrame(made).set_index(next(iter(table)))


def cells(kind: ColumnType, values: Sequence[Any]) -> Any:
    """The column of a frame; None is missing."""
    match kind:
        case ColumnType.TIME:
            return to_times(np.array(values, dtype=np.float64))
        case ColumnType.NUMBER:
            return np.array(values, dtype=np.float64)
        case ColumnType.INTEGER:
            return np.array(values, dtype=np.int64)
        case ColumnType.OPTIONAL_INTEGER:
            return pd.array(list(values), dtype="Int64")
        case ColumnType.TEXT:
            return pd.array(list(values), dtype=TEXT)
        case ColumnType.JSON:
            return pd.Series(list(values), dtype=object)


def to_times(seconds: Any) -> pd.DatetimeIndex:
    """float64[N] of unix seconds as times; missing where NaN, or beyond what the type holds."""
    missing = ~(np.abs(seconds) < MAX_SECONDS)
    whole = np.round(np.where(missing, 0.0, seconds) * 1e6).astype("datetime64[us]")
    whole[missing] = np.datetime64("NaT")
    return pd.DatetimeIndex(whole).tz_localize("UTC")
