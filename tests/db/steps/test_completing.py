"""Metrics that come after their step join it, in rows and in blocks."""

import math

import pytest
import sqlalchemy as sa

from db import frames, queries
from db.lineage import StepRange
from db.steps import rollups
from db.steps.completing import complete_steps
from db.store.engine import writing
from tests.db.seed import add_run, add_segment, add_steps

LATE = {3: {"eval/loss": 2.5, "loss": math.inf}, 600: {"loss": 0.25}, 1205: {"eval/loss": math.nan}}


@pytest.mark.parametrize("has_blocks", [True, False])
def test_late_metrics_are_as_if_they_had_come_with_their_step(engine: sa.Engine, has_blocks: bool) -> None:
    columns: dict[str, list[float | None]] = {"loss": [1.0] * 1210, "eval/loss": [None] * 1210}
    with writing(engine) as session:
        completed, whole = add_run(session, "completed"), add_run(session, "whole")
        for run in (completed, whole):
            segment = add_segment(session, run, run.id)
            segment.has_blocks = has_blocks
            if run is whole:
                for step, metrics in LATE.items():
                    for name, value in metrics.items():
                        columns[name][step] = value
            add_steps(session, run, segment, range(1200), **{name: values[:1200] for name, values in columns.items()})
            add_steps(
                session, run, segment, range(1200, 1210), **{name: values[1200:] for name, values in columns.items()}
            )
        first = queries.segments(session, run=completed)[0]
        assert first.num_packed == (1200 if has_blocks else 0)
        numbers = rollups.metric_numbers(session, run_pk=completed.pk)
        assert complete_steps(session, run=completed, segment=first, values=LATE, numbers=numbers) == numbers
        assert frames.steps(session, run=completed).equals(frames.steps(session, run=whole))
        charts = [
            str(queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=3))
            for run in (completed, whole)
        ]
        assert charts[0] == charts[1]
