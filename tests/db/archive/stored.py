"""Stores with a run to archive, for the tests of archived steps."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.archive import archiving, unarchiving
from db.archive.blocks import difference
from db.lineage import Line, step_ranges
from db.steps import reader
from db.steps.archived import reading as archived_reading
from db.steps.archived.places import Place
from db.steps.step_block import StepBlock, joined
from db.store.engine import reading, writing
from tests.db.seed import NOW, add_run, add_segment, add_steps, end_run, stored_run

PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]
"""A NaN with bits of its own."""
WHO = "python -m db archive"


def add_ended_run(session: Session, run_id: str = "r1", *, num_steps: int = 1500, at: float = NOW) -> None:
    """Two segments: blocks with gaps and values of every kind, and a short branch of rows."""
    run = add_run(session, run_id)
    numbers = np.arange(num_steps)
    steps = (numbers + numbers // 300).tolist()  # some are missing
    loss = [math.nan if step % 400 == 7 else 3 + math.sin(step) for step in steps]
    loss[5] = PAYLOAD
    loss[6] = -math.inf
    first = add_segment(session, run, "a")
    add_steps(
        session,
        run,
        first,
        steps,
        loss=loss,
        **{"tokens": [4096.0 * step for step in steps], "step": [None if step % 50 else step / 7 for step in steps]},
    )
    second = add_segment(session, run, "b", fork_step=num_steps // 2)
    branch = range(num_steps // 2, num_steps // 2 + 40)
    add_steps(session, run, second, branch, loss=[2.0] * 40, **{"eval/a.b": [0.5] * 40})
    end_run(session, run, at)


def store_run(engine: sa.Engine, **how: Any) -> list[StepBlock]:
    """Add the ended run r1: its steps."""
    with writing(engine) as session:
        add_ended_run(session, **how)
    return whole(engine)


def whole(engine: sa.Engine, run_id: str = "r1") -> list[StepBlock]:
    """Every stored step of the run with every metric, segment by segment."""
    with reading(engine) as session:
        return whole_of(session, run_id)


def whole_of(session: Session, run_id: str = "r1") -> list[StepBlock]:
    """The same, as a session sees it."""
    run = stored_run(session, run_id)
    metrics = queries.metric_names(session, run=run)
    tree = queries.segments(session, run=run)
    return [
        joined(list(reader.read_blocks(session, run_pk=run.pk, step_range=part, metrics=metrics)), metrics)
        for part in step_ranges(tree, Line.ALL)
    ]


def archive(engine: sa.Engine, place: Place, run_id: str = "r1") -> list[archiving.Written]:
    """Archive a run: its files."""
    written: list[archiving.Written] = []
    archiving.prepare(engine, place)
    with archiving.turn_taken(engine) as ours:
        archiving.archive_run(engine, run_id=run_id, place=place, turn=ours, now=NOW, who=WHO, on_file=written.append)
    return written


def assert_same(before: list[StepBlock], after: list[StepBlock]) -> None:
    """The same steps of each segment, to the last bit."""
    assert [difference(*pair) for pair in zip(before, after, strict=True)] == [None] * len(before)


def flipped(content: bytes) -> bytes:
    """With one bit in the middle that is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


class Killed(BaseException):
    """In place of the end of the process."""


def die(*_: object, **__: object) -> None:
    raise Killed


def unarchive(engine: sa.Engine) -> list[archiving.Written]:
    """Bring the run r1 back: what was in its files."""
    written: list[archiving.Written] = []
    with archiving.turn_taken(engine) as ours:
        unarchiving.unarchive_run(engine, run_id="r1", turn=ours, now=NOW, who="me", on_file=written.append)
    return written


def value_bytes(engine: sa.Engine) -> int:
    """Bytes of values in the store."""
    with reading(engine) as session:
        return session.scalar(sa.text('SELECT sum(length("values")) FROM block_values')) or 0


def parquet_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def forget_contents() -> None:
    """Have files looked at and row groups read anew; footers stay known."""
    archived_reading._version.cache_clear()
    archived_reading._group.cache_clear()
