"""A series from roll-ups is the series of the steps, however they came, wherever it is cut."""

import math
import uuid
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import queries
from db.lineage import StepRange
from db.steps.series import METRICS_AT_ONCE, Series
from db.store.engine import reading, writing
from tests.db.seed import add_rollbacks, add_run, add_segment, add_steps, num_calls
from tests.db.steps.plain_series import Value, assert_same, plain_loop, report


def width_of(first: int, last: int, points: int) -> int:
    width = 1
    while last // width - first // width + 1 > points:
        width *= 2
    return width


numbers = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["loss", "eval/loss"]), points=st.sampled_from([1, 3, 10, 40, 200]))
def test_a_series_agrees_with_a_plain_loop_whatever_the_order_and_size_of_the_reports(
    engine: sa.Engine, data: st.DataObject, name: str, points: int
) -> None:
    gap, start = data.draw(st.sampled_from([1, 1, 3])), data.draw(st.sampled_from([0, 0, 37]))
    count = data.draw(st.integers(1, 400))
    steps = [start + gap * at for at in range(count)]
    column = data.draw(st.lists(numbers, min_size=1, max_size=40))
    values = {step: column[at * 7 % len(column)] for at, step in enumerate(steps)}
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=6)))
    parts = [steps[low:high] for low, high in zip([0, *cuts], [*cuts, count], strict=True) if low < high]
    with writing(engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        for part in data.draw(st.permutations(parts)):  # late ones included
            report(session, run, values, part, name)
        for first, last in [(0, steps[-1]), (data.draw(st.integers(0, 300)), data.draw(st.integers(0, 500)))]:
            found = queries.series(
                session,
                run=run,
                step_ranges=[StepRange(0, 0, None)],
                metric=name,
                first=first,
                last=last,
                points=points,
            )
            low, high = max(first, steps[0]), min(last, steps[-1])
            wanted = plain_loop(values, first, last, width_of(low, high, points)) if low <= high else Series()
            assert_same(found, wanted)
            assert len(found) <= points


@pytest.mark.slow
def test_metrics_that_are_read_together_are_each_as_read_alone(sqlite_engine: sa.Engine) -> None:
    extra: dict[str, list[Value]] = {f"layer/{at}": [float(at)] * 300 for at in range(METRICS_AT_ONCE + 10)}
    extra["layer/7"][100:103] = [math.nan, -math.inf, None]
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(300), loss=[1.0] * 299 + [math.inf], **extra)
        add_steps(session, run, add_segment(session, run, "b", fork_step=150), range(150, 500), loss=[2.0] * 350)
    with reading(sqlite_engine) as session:
        run = queries.runs(session)[0]
        for step_ranges in (queries.live(session, run=run), [StepRange(0, 0, None)]):
            for points, first in ((10, None), (1000, 90)):
                how: dict[str, Any] = {"run": run, "step_ranges": step_ranges, "points": points, "first": first}
                together = queries.many_series(session, metrics=["loss", "never", *extra], **how)
                alone = {name: queries.series(session, metric=name, **how) for name in together}
                assert together == alone
                assert list(together) == ["loss", "never", *extra]
        assert sum(together["layer/7"].non_finite) == 2
        assert len(together["never"]) == 0


def test_fewer_points_than_one_are_refused(engine: sa.Engine) -> None:
    with writing(engine) as session, pytest.raises(ValueError, match="points"):
        queries.series(session, run=add_run(session), step_ranges=[], metric="loss", points=0)


def test_the_order_in_which_the_database_gives_its_rows_does_not_matter(engine: sa.Engine) -> None:
    """PostgreSQL read a small table from its pages, not along the key: a series of single steps came back shuffled."""
    values: dict[int, Value] = {step: float(step) for step in range(14)}
    with writing(engine) as session:
        run = add_run(session)
        report(session, run, values, range(7, 14), "loss")
        report(session, run, values, range(7), "loss")
        if engine.dialect.name == "postgresql":
            for method in ("indexscan", "indexonlyscan", "bitmapscan"):
                session.execute(sa.text(f"SET LOCAL enable_{method} = off"))
        found = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss")
        assert found.last == [float(step) for step in range(14)]
        whole = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=1)
        assert (whole.first, whole.last) == ([0.0], [13.0])


def test_a_series_of_one_segment_costs_the_same_however_many_segments_the_run_has(sqlite_engine: sa.Engine) -> None:
    calls: dict[int, int] = {}
    for count in (10, 10, 100):  # the first time, statements are compiled
        with writing(sqlite_engine) as session:
            run = add_run(session, f"{count}-{len(calls)}")
            add_rollbacks(session, run, count)
            one = [StepRange(3, 0, None)]
            read = partial(queries.series, session, run=run, step_ranges=one, metric="loss")
            assert sum(read().count) == 10
            calls[count] = num_calls(read)
    assert calls[100] < 1.1 * calls[10]
