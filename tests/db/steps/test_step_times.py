"""Stored steps at, before and after a step are found in rows and in blocks, of several runs at once."""

import bisect

import numpy as np
import sqlalchemy as sa

from db.steps import step_times
from db.steps.step_times import At, StepTime
from db.store.engine import reading, writing
from tests.db.seed import NOW, add_run, add_segment, add_steps

IN_BLOCKS, IN_ROWS = [*range(10, 1500, 2), *range(2000, 2600)], [9, 1555, 2601]


def test_the_nearest_steps_are_found_in_rows_and_in_blocks(engine: sa.Engine) -> None:
    stored = sorted(IN_BLOCKS + IN_ROWS)
    with writing(engine) as session:
        runs = [add_run(session, run_id) for run_id in ("r1", "r2")]
        for run in runs:
            segment = add_segment(session, run, run.id)
            add_steps(session, run, segment, IN_BLOCKS)
            add_steps(session, run, segment, IN_ROWS)
    wanted = [At(run.pk, 0, step) for run in runs for step in [*range(0, 2700, 7), *IN_ROWS, 1498, 1499, 2599, 2600]]
    with reading(engine) as session:
        assert session.scalar(sa.text("SELECT count(*) FROM steps")) == 2 * len(IN_ROWS)
        before, after = step_times.at_or_before(session, wanted), step_times.after(session, wanted)
        times = step_times.times_of(session, wanted)
        of_numpy = [At(runs[0].pk, 0, step) for step in np.array([10])]
        assert step_times.times_of(session, of_numpy) == {At(runs[0].pk, 0, 10): NOW + 10}
    for at in wanted:
        position = bisect.bisect_right(stored, at.step)
        assert before.get(at) == (_step(stored[position - 1]) if position else None)
        assert after.get(at) == (_step(stored[position]) if position < len(stored) else None)
        assert times.get(at) == (NOW + at.step if at.step in stored else None)


def _step(step: int) -> StepTime:
    return StepTime(step, NOW + step)
