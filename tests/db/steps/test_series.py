"""A series from roll-ups is the series of the steps, however they came, wherever it is cut."""

import math
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import queries
from db.engine import reading, writing
from db.lineage import StepRange
from db.models import Rollup, Run
from db.steps import rollups
from db.steps.series import METRICS_AT_ONCE, Series
from tests.db.seed import add_run, add_segment, add_steps

Value = float | None


def plain_loop(values: dict[int, Value], first: int, last: int, width: int) -> Series:
    """The same answer by reading every value."""
    result = Series()
    buckets: dict[int, dict[int, float]] = {}
    for step in sorted(values):
        value = values[step]
        if first <= step <= last and value is not None:
            buckets.setdefault(step // width, {})[step] = value
    for bucket in buckets.values():
        finite = [value for value in bucket.values() if math.isfinite(value)]
        result.first_step.append(min(bucket))
        result.last_step.append(max(bucket))
        result.count.append(len(finite))
        result.non_finite.append(len(bucket) - len(finite))
        result.min.append(min(finite) if finite else None)
        result.max.append(max(finite) if finite else None)
        result.mean.append(math.fsum(finite) / len(finite) if finite else None)
        result.first.append(finite[0] if finite else None)
        result.last.append(finite[-1] if finite else None)
    return result


def assert_same(found: Series, wanted: Series) -> None:
    for name in ("first_step", "last_step", "count", "non_finite", "min", "max", "first", "last"):
        assert getattr(found, name) == getattr(wanted, name), name
    for mean, exact in zip(found.mean, wanted.mean, strict=True):
        assert (mean is None) == (exact is None)
        assert mean is None or exact is None or math.isclose(mean, exact, rel_tol=1e-9, abs_tol=1e-9)


def width_of(first: int, last: int, points: int) -> int:
    width = 1
    while last // width - first // width + 1 > points:
        width *= 2
    return width


def report(session: sa.orm.Session, run: Run, values: dict[int, Value], steps: Sequence[int], name: str) -> None:
    steps = sorted(steps)
    columns: dict[str, list[Value]] = {name: [values[step] for step in steps], "lr": [0.1] * len(steps)}
    add_steps(session, run, add_segment(session, run, "a"), steps, **columns)


numbers = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])


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


def test_steps_that_come_late_mend_the_roll_ups(engine: sa.Engine) -> None:
    values: dict[int, Value] = {step: float(step % 50) for step in range(300)}
    values |= {40: 999.0, 41: math.nan, 130: -5.0}
    late = [40, 41, 130, 131]
    with writing(engine) as session:
        run = add_run(session)
        report(session, run, values, [step for step in range(300) if step not in late], "loss")
        report(session, run, values, late, "loss")
        found = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=8)
        assert session.scalar(sa.select(sa.func.count()).where(Rollup.level == 2)) == 4 * 3  # loss, lr, perplexity
    assert_same(found, plain_loop(values, 0, 299, 64))


def test_a_metric_that_is_reported_now_and_then_keeps_its_points(engine: sa.Engine) -> None:
    """The report that seals a bucket does not carry the metric: what came before is not forgotten."""
    with writing(engine) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        for step in range(100):
            extra: dict[str, list[Value]] = {"eval/loss": [float(step)]} if step % 25 == 0 else {}
            add_steps(session, run, segment, [step], loss=[1.0], **extra)
        found = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="eval/loss", points=2)
    assert (found.first_step, found.last_step, found.count) == ([0, 75], [50, 75], [3, 1])


def test_metrics_that_are_read_together_are_each_as_read_alone(engine: sa.Engine) -> None:
    extra: dict[str, list[Value]] = {f"layer/{at}": [float(at)] * 300 for at in range(METRICS_AT_ONCE + 10)}
    extra["layer/7"][100:103] = [math.nan, -math.inf, None]
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(300), loss=[1.0] * 299 + [math.inf], **extra)
        add_steps(session, run, add_segment(session, run, "b", fork_step=150), range(150, 500), loss=[2.0] * 350)
    with reading(engine) as session:
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


def test_a_discarded_branch_is_not_in_the_roll_ups_of_the_live_line(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(500), loss=[1.0] * 333 + [9.0] * 167)
        add_steps(session, run, add_segment(session, run, "b", fork_step=333), range(333, 600), loss=[2.0] * 267)
    with reading(engine) as session:
        run = queries.runs(session)[0]
        live = queries.series(session, run=run, step_ranges=queries.live(session, run=run), metric="loss", points=4)
        assert max(value or 0 for value in live.max) == 2.0
        assert sum(live.count) == 600
        assert (live.first_step[0], live.first[0], live.last_step[-1], live.last[-1]) == (0, 1.0, 599, 2.0)
        assert len(live) <= 4


def test_level_ranges_cover_a_range_once_and_reach_into_no_open_bucket() -> None:
    for low, high, sealed in [(0, 1000, 1000), (37, 995, 1000), (5, 9, 9), (17, 70, 64), (0, 5000, 64)]:
        parts = list(rollups.split_by_level(4, low, high, sealed))
        assert [part[1] for part in parts] == [low, *(part[2] for part in parts[:-1])]
        assert parts[-1][2] == high
        assert all(level == 0 or (end <= sealed and begin % rollups.width(level) == 0) for level, begin, end in parts)


def test_numbers_too_large_to_add_up_have_a_mean(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(40), loss=[1.7e308] * 40)
        found = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=1)
    assert found.mean == [1.7e308]


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
