"""A number comes back from the store as it was reported, whatever it is."""

import math
import uuid

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.engine import reading, writing
from db.lineage import StepRange
from db.steps import reader, writer
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
