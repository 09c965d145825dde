"""Sources of every format, small and whole, and what an attacker makes of them."""

import json
import sqlite3
import struct
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from lossguard.sources.readers.event_records import _crc32c, _masked
from lossguard.sources.readers.wandb_offline import BLOCK, CHUNK_HEADER, FIRST, FULL, LAST, MIDDLE

STEPS = range(3)


def event_header(length: int) -> bytes:
    """The header of a record of an event file, with the checksum that fits."""
    data = struct.pack("<Q", length)
    return data + struct.pack("<I", _masked(_crc32c(data)))


def event_file(steps: Iterable[int] = STEPS) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary(value=[Summary.Value(tag="loss", simple_value=3.0 - step)]) for step in steps]
    events = [Event(wall_time=1.7e9 + at, step=at, summary=value) for at, value in enumerate(values)]
    records = [event.SerializeToString() for event in events]
    return b"".join(event_header(len(record)) + record + b"abcd" for record in records)


def wandb_record(step: int | None = None, **values: str) -> bytes:
    """A record of a log of W&B: the run, or a row of its history with values as JSON."""
    record: Any = import_module("wandb.proto.wandb_internal_pb2").Record()
    if step is None:
        record.run.run_id, record.run.project = "r", "gpt"
        return bytes(record.SerializeToString())
    record.history.step.num = step
    for name, text in values.items():
        item = record.history.item.add()
        item.key, item.value_json = name, text
    return bytes(record.SerializeToString())


def wandb_log(records: Iterable[bytes] = ()) -> bytes:
    """A log of W&B with these records, or with those of a small run."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records or [wandb_record(), *(wandb_record(step, loss="1.5") for step in STEPS)]:
        left, is_first = memoryview(record), True
        while is_first or left:
            room = BLOCK - len(out) % BLOCK
            if room < CHUNK_HEADER.size:
                out += bytes(room)
                room = BLOCK
            chunk, left = left[: room - CHUNK_HEADER.size], left[room - CHUNK_HEADER.size :]
            kind = (MIDDLE if left else LAST) if not is_first else FIRST if left else FULL
            out += CHUNK_HEADER.pack(0, len(chunk), kind) + chunk
            is_first = False
    return bytes(out)


METRICS = "CREATE TABLE metrics (id INTEGER, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
CONFIGS = "CREATE TABLE configs (id INTEGER, run_name TEXT, config TEXT, created_at TEXT)"
ROW = "INSERT INTO metrics VALUES ({0}, '2026-01-01T00:00:00', 'warm', {0}, '{{\"loss\": 1.5}}')"


def sqlite_file(path: Path, *statements: str) -> None:
    """A file of trackio, or one that these statements make."""
    connection = sqlite3.connect(path)
    for statement in statements or (METRICS, CONFIGS, *(ROW.format(step) for step in STEPS)):
        connection.execute(statement)
    connection.commit()
    connection.close()


def parquet_file(path: Path, **columns: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table(columns or {"step": list(STEPS), "loss": [1.5] * len(STEPS)})
    pyarrow.parquet.write_table(table, path)


STATE = {"log_history": [{"step": step, "loss": 1.5} for step in STEPS]}
MAKE: dict[str, Callable[[Path], object]] = {
    "a.csv": lambda path: path.write_text("step,loss\n" + "".join(f"{step},1.5\n" for step in STEPS)),
    "a.jsonl": lambda path: path.write_text("".join(f'{{"step": {step}, "loss": 1.5}}\n' for step in STEPS)),
    "a.log": lambda path: path.write_text("".join(f"iter {step}: loss 1.5, time 1ms, mfu 1%\n" for step in STEPS)),
    "trainer_state.json": lambda path: path.write_text(json.dumps(STATE)),
    "events.out.tfevents.1.h.1.0": lambda path: path.write_bytes(event_file()),
    "run-a.wandb": lambda path: path.write_bytes(wandb_log()),
    "gpt.db": sqlite_file,
    "a.parquet": parquet_file,
}
"""Name of a file -> writes a small run there."""
