"""Neptune exports with the columns of neptune-exporter."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lossguard.sources import formats
from lossguard.vocabulary.states import RunState

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("project_id", "run_id", "attribute_path", "attribute_type")),
        ("step", pa.decimal128(18, 6)),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("string_value", pa.string()),
        ("bool_value", pa.bool_()),
        ("datetime_value", pa.timestamp("ms", tz="UTC")),
        ("string_set_value", pa.list_(pa.string())),
    ]
)
BEGIN = 1_700_000_000


def line(run: str, path: str, kind: str, **values: Any) -> dict[str, Any]:
    return {"project_id": "team/gpt", "run_id": run, "attribute_path": path, "attribute_type": kind} | values


def series(run: str, path: str, values: dict[float, float]) -> list[dict[str, Any]]:
    times = [datetime.fromtimestamp(BEGIN + step, UTC) for step in values]
    return [
        line(run, path, "float_series", step=Decimal(str(step)), timestamp=time, float_value=value)
        for time, (step, value) in zip(times, values.items(), strict=True)
    ]


def test_runs_are_read_from_all_files_with_their_names_configuration_tags_and_times(tmp_path: Path) -> None:
    begun = datetime.fromtimestamp(BEGIN, UTC)
    first = [
        line("A-1", "sys/name", "string", string_value="warm"),
        line("A-1", "sys/tags", "string_set", string_set_value=["x", "y"]),
        line("A-1", "sys/creation_time", "datetime", datetime_value=begun),
        line("A-1", "params/lr", "float", float_value=0.1),
        line("A-1", "params/layers", "int", int_value=12),
        *series("A-1", "train/loss", {0: 3.0, 1: math.nan, 2: 2.0, 2.5: 9.0}),
        line("A-2", "sys/failed", "bool", bool_value=True),
    ]
    second = [*series("A-1", "grad_norm", {0: 1.0, 2: math.inf}), *series("A-2", "train/loss", {5: 1.0})]
    for number, lines in enumerate((first, second)):
        pq.write_table(pa.Table.from_pylist(lines, SCHEMA), tmp_path / f"part_{number}.parquet")
    warm, other = formats.runs_in(tmp_path)
    assert (warm.name, warm.project, list(warm.tags), warm.started_at) == ("warm", "gpt", ["x", "y"], BEGIN)
    assert warm.config == {"params/lr": 0.1, "params/layers": 12}
    rows = list(warm.rows())
    assert [(row.step, row.time) for row in rows] == [(0, BEGIN), (1, BEGIN + 1), (2, BEGIN + 2)]
    assert rows[2].values == {"train/loss": 2.0, "grad_norm": math.inf}
    assert math.isnan(rows[1].values["train/loss"])
    assert (other.name, other.state) == ("A-2", RunState.FAILED)
    assert [(row.step, row.values) for row in other.rows()] == [(5, {"train/loss": 1.0})]
