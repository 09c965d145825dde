"""Runs to export, all that the store holds of one, and imports that must fail."""

import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.files import export, imports, record
from db.files.export import Format
from db.lineage import StepRange
from db.models import Run
from db.steps import reader
from db.store.engine import reading, writing
from tests.db.seed import NOW, add_incident_records, add_run, add_segment, add_steps


def add_forked_run(session: Session, parts: Sequence[tuple[int, Mapping[str, Any]]], details: Mapping[str, Any]) -> Run:
    """A run whose segments fork off at these steps, four steps each, with incidents, interventions and events."""
    run = add_run(session, uuid.uuid4().hex, config=dict(details), policy={"mode": "approve"})
    for at, (fork, columns) in enumerate(parts):
        segment = add_segment(session, run, f"s{at}", fork_step=fork)
        add_steps(session, run, segment, range(fork, fork + 4), **columns)
    add_segment(session, run, "a resume that never reported", fork_step=None)
    add_incident_records(session, run, details)
    return run


def write(engine: sa.Engine, run_id: str, path: Path) -> Path:
    path.write_bytes(b"".join(export.stream(engine, run_id=run_id, format=Format(path.suffix[1:]))))
    return path


def all_of(session: Session, run: Run) -> dict[str, Any]:
    """Everything that the store holds of a run: orders by position instead of id, NaN as text."""
    described = record.describe(session, run=run)
    places = {order["id"]: at for at, order in enumerate(described["orders"])}
    for row in (*described["orders"], *described["segments"], *described["skip_ledger"]):
        row |= {name: places.get(row[name]) for name in ("id", "order_id") if name in row}
    described["run"]["id"] = "same"
    for metric in described["metrics"]:
        described[f"values of {metric}"] = str(values_of(session, run, metric))
        live = queries.live(session, run=run)
        described[f"chart of {metric}"] = str(
            queries.series(session, run=run, step_ranges=live, metric=metric, points=3)
        )
    return described


def values_of(session: Session, run: Run, metric: str) -> list[object]:
    """(segment, step, time, value) in order, None where the metric was not reported."""
    return [
        (block.segment, step, time, value if reported else None)
        for segment in queries.segments(session, run=run)
        for block in reader.read_blocks(
            session, run_pk=run.pk, step_range=StepRange(segment.number, 0, None), metrics=[metric]
        )
        for step, time, value, reported in zip(
            block.steps.tolist(),
            block.times.tolist(),
            block.metrics[metric].values.tolist(),
            block.metrics[metric].reported.tolist(),
            strict=True,
        )
    ]


def small_run(engine: sa.Engine, **values: Any) -> str:
    with writing(engine) as session:
        run = add_run(session, **values)
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[1.0, math.nan, None] * 50)
        add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 200))
        return run.id


def refused(engine: sa.Engine, path: Path, sentence: str) -> None:
    """The import of the file fails with such a sentence, and nothing of it is imported."""
    with pytest.raises(imports.BadFile, match=sentence) as caught, writing(engine) as session:
        imports.import_file(session, path=path, now=NOW)
    assert "\n" not in str(caught.value)
    with reading(engine) as session:
        assert queries.runs(session) == []
