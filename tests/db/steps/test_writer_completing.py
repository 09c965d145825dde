"""Metrics that come after their step join it, in rows and in blocks."""

import math
from typing import Any

import pytest
import sqlalchemy as sa

from db import frames, queries
from db.lineage import StepRange
from db.steps import rollups, writer
from db.steps.writer import complete_steps
from db.store.engine import writing
from tests.db.seed import add_run, add_segment, add_steps

LATE = {3: {"eval/loss": 2.5, "loss": math.inf}, 600: {"loss": 0.25}, 1205: {"eval/loss": math.nan}}


@pytest.mark.parametrize("pack_at", [writer.PACK_AT, 10_000])
def test_late_metrics_are_as_if_they_had_come_with_their_step_however_often_they_come(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, pack_at: int
) -> None:
    monkeypatch.setattr(writer, "PACK_AT", pack_at)
    columns: dict[str, list[float | None]] = {"loss": [1.0] * 1210, "eval/loss": [None] * 1210}
    with writing(engine) as session:
        completed, whole = add_run(session, "completed"), add_run(session, "whole")
        for run in (completed, whole):
            segment = add_segment(session, run, run.id)
            for step, metrics in LATE.items() if run is whole else ():
                for name, value in metrics.items():
                    columns[name][step] = value
            for part in (slice(1200), slice(1200, 1210)):
                steps = range(1210)[part]
                add_steps(session, run, segment, steps, **{name: values[part] for name, values in columns.items()})
        first = queries.segments(session, run=completed)[0]
        assert first.num_packed == (1200 if pack_at < 10_000 else 0)
        numbers = rollups.metric_numbers(session, run_pk=completed.pk)
        for _ in range(2):
            assert complete_steps(session, run=completed, segment=first, values=LATE, numbers=numbers) == numbers
        assert frames.steps(session, run=completed).equals(frames.steps(session, run=whole))
        for points in (3, 40, 2000):
            how: dict[str, Any] = {"step_ranges": [StepRange(0, 0, None)], "metric": "loss", "points": points}
            one, other = (str(queries.series(session, run=run, **how)) for run in (completed, whole))
            assert one == other
