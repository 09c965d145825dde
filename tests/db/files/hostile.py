"""Parquet files that a program wrote which wants to do harm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from db.files import record
from db.files.export import KEY
from tests.db.seed import NOW


def write_run(path: Path, num_metrics: int, num_steps: int, **options: Any) -> Path:
    """A file as the export writes it, of a run whose metrics are all 0."""
    names = [f"m{at}" for at in range(num_metrics)]
    zeros = np.zeros(num_steps)
    table = pa.table({"segment": zeros.astype(np.int32), "step": np.arange(num_steps), "time": zeros + NOW})
    for name in names:
        table = table.append_column(name, pa.array(zeros))
    table = table.replace_schema_metadata({KEY: description(names, num_steps)})
    pyarrow.parquet.write_table(table, path, compression="zstd", **options)
    return path


def description(metrics: list[str], num_steps: int) -> str:
    run: dict[str, Any] = {"id": "r", "project": "p", "state": "finished", "config": {}, "devices": [], "versions": {}}
    run |= {"capabilities": [], "restorable_steps": [], "started_at": NOW, "last_report_at": NOW, "finished_at": NOW}
    segment = {"number": 0, "fork_step": 0, "live_order": 0, "key": "a", "reason": "start", "opened_at": NOW}
    segment |= {"num_steps": num_steps}
    described: dict[str, Any] = {part: [] for part in record.PARTS} | {"segments": [segment]}
    return json.dumps(described | {"format": 1, "run": run, "metrics": metrics, "watch": None})


def write_run_with_a_bomb(path: Path, num_bytes: int) -> Path:
    """A run whose steps are one page of so many zeros, while the file says that the column has 80 kB."""
    num_steps = 10_000
    noise = np.random.default_rng(0).integers(0, 2**53, num_steps)
    columns = {"segment": np.zeros(num_steps, dtype=np.int32), "step": noise, "time": noise * 1e-9}
    fields = [pa.field(name, pa.array(column).type, nullable=False) for name, column in columns.items()]
    schema = pa.schema(fields, metadata={KEY: description([], num_steps)})
    table = pa.table(columns, schema=schema)
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(1)
    zeros = pa.Codec("zstd").compress(bytes(num_bytes), asbytes=True)
    page = _page_header(num_bytes, len(zeros), num_steps) + zeros
    assert len(page) <= column.total_compressed_size
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + len(page)] = page
    path.write_bytes(content)
    return path


def _page_header(uncompressed: int, compressed: int, num_values: int) -> bytes:
    """A data page of plain values, in Thrift's compact protocol."""
    sizes = [0, uncompressed, compressed]
    page = [num_values, 0, 3, 3]  # plain encoding; levels as runs
    return b"".join(b"\x15" + _varint(2 * size) for size in sizes) + (
        b"\x2c" + b"".join(b"\x15" + _varint(2 * value) for value in page) + b"\x00\x00"
    )


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
