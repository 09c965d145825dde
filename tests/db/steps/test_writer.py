"""A number comes back from the store as it was reported, whatever it is."""

import math
import uuid

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import queries
from db.lineage import StepRange
from db.steps import reader, rollups, writer
from db.steps.completing import complete_steps
from db.store.engine import reading, writing
from tests.db.seed import add_run, add_segment, add_steps

numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
names = st.sampled_from(["loss", "grad_norm", "log_z", "eval/loss", "with space", "quote'\"s"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, st.lists(numbers, min_size=3, max_size=3)))
def test_every_number_survives_the_store(engine: sa.Engine, metrics: dict[str, list[float | None]]) -> None:
    with writing(engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        writer.insert_steps(session, run=run, segment=0, steps=[1, 2, 3], times=[1.0, 2.0, 3.0], metrics=metrics)
    with reading(engine) as session:
        (block,) = reader.read_blocks(session, run_pk=run.pk, step_range=StepRange(0, 0, None), metrics=list(metrics))
        for name, column in metrics.items():
            found = block.metrics[name]
            stored = [value if known else None for value, known in zip(found.values, found.reported, strict=True)]
            assert stored == [value if value is None else pytest.approx(value, nan_ok=True) for value in column]


def test_the_perplexity_is_added_and_does_not_overflow(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), [0, 1, 2], loss=[1.0, 5000.0, math.nan])
        (block,) = reader.read_blocks(session, run_pk=run.pk, step_range=StepRange(0, 0, None), metrics=["perplexity"])
    assert block.metrics["perplexity"].reported.tolist() == [True, False, False]
    assert block.metrics["perplexity"].values[0] == pytest.approx(math.e)


def test_known_steps_are_those_of_one_segment(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), [5, 6, 9])
        assert writer.known_steps(session, run=run, segment=0, steps=[6, 7, 9, 10]) == {6, 9}
        assert writer.known_steps(session, run=run, segment=1, steps=[6]) == set()


LATE = st.dictionaries(
    st.integers(0, 79), st.dictionaries(names, st.floats(allow_nan=True, allow_infinity=True), min_size=1), max_size=6
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LATE)
def test_steps_that_are_completed_later_are_as_if_they_had_come_whole(
    engine: sa.Engine, late: dict[int, dict[str, float]]
) -> None:
    """In the steps and in every level of the roll-ups."""
    steps, losses = range(80), [1.0 + step for step in range(80)]
    with writing(engine) as session:
        whole, completed = add_run(session, uuid.uuid4().hex), add_run(session, uuid.uuid4().hex)
        columns: dict[str, list[float | None]] = {"loss": list(losses)}
        for step, metrics in late.items():
            for name, value in metrics.items():
                columns.setdefault(name, [None] * 80)[step] = value
        add_steps(session, whole, add_segment(session, whole, "a"), steps, **columns)
        segment = add_segment(session, completed, "a")
        add_steps(session, completed, segment, steps, loss=losses)
        known = rollups.metric_numbers(session, run_pk=completed.pk)
        complete_steps(session, run=completed, segment=segment, values=late, numbers=known)
        again = rollups.metric_numbers(session, run_pk=completed.pk)
        assert complete_steps(session, run=completed, segment=segment, values=late, numbers=again) == again
    with reading(engine) as session:
        for name in {"perplexity", *columns}:
            for points in (2, 5, 200):
                series = [
                    queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric=name, points=points)
                    for run in (whole, completed)
                ]
                assert repr(series[0]) == repr(series[1]), name
