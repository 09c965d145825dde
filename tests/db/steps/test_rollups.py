"""Roll-ups hold what the steps hold, whenever these come."""

import math
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.models import Rollup, Run
from db.steps import buckets, rollups, writer
from db.steps.buckets import STORED
from db.steps.writer import complete_steps
from db.store.engine import reading, writing
from tests.db.seed import add_run, add_segment, add_steps, end_run
from tests.db.steps.plain_series import Value, assert_same, plain_loop, report


def test_steps_that_come_late_mend_the_roll_ups(engine: sa.Engine) -> None:
    values: dict[int, Value] = {step: float(step % 50) for step in range(300)}
    values |= {40: 999.0, 41: math.nan, 130: -5.0}
    late = [40, 41, 130, 131]
    with writing(engine) as session:
        run = add_run(session)
        report(session, run, values, [step for step in range(300) if step not in late], "loss")
        report(session, run, values, late, "loss")
        found = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=2)
        assert session.scalar(sa.select(sa.func.count()).where(Rollup.level == buckets.FINEST)) == 3  # with the lr
    assert_same(found, plain_loop(values, 0, 299, 256))


def test_a_metric_that_is_reported_now_and_then_keeps_its_points(session: Session, run: Run) -> None:
    """The report that seals a bucket does not carry the metric: what came before is not forgotten."""
    segment = add_segment(session, run, "a")
    for step in range(100):
        extra: dict[str, list[Value]] = {"eval/loss": [float(step)]} if step % 25 == 0 else {}
        add_steps(session, run, segment, [step], loss=[1.0], **extra)
    found = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="eval/loss", points=2)
    assert (found.first_step, found.last_step, found.count) == ([0, 75], [50, 75], [3, 1])


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


def test_the_roll_ups_of_a_count_hold_the_whole_numbers_that_are_stored(session: Session, run: Run) -> None:
    segment = add_segment(session, run, "a")
    add_steps(session, run, segment, range(256), tokens=[step + 0.5 for step in range(256)])
    (bucket,) = session.scalars(sa.select(Rollup).where(Rollup.level == buckets.FINEST)).all()
    assert (bucket.min, bucket.max, bucket.mean, bucket.last) == (0.0, 255.0, 127.5, 255.0)


reports = st.lists(st.tuples(st.integers(1, 700), st.integers(0, 3), st.booleans()), min_size=2, max_size=8)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reports=reports, late=st.none() | st.integers(1, 7))
def test_the_roll_ups_are_the_same_whether_the_open_bucket_is_kept_or_read(
    sqlite_engine: sa.Engine, reports: list[tuple[int, int, bool]], late: int | None
) -> None:
    """Reports of so many steps after a gap, some with a second metric; two of them may change places."""
    parts, first = list[tuple[list[int], bool]](), 0
    for size, gap, has_other in reports:
        parts.append((list(range(first + gap, first + gap + size)), has_other))
        first += gap + size
    if late is not None and late < len(parts):
        parts[late - 1 : late + 1] = parts[late - 1 : late + 1][::-1]
    with writing(sqlite_engine) as session:
        assert roll_ups(session, parts, keeps=True) == roll_ups(session, parts, keeps=False)


def roll_ups(session: Session, parts: Sequence[tuple[Sequence[int], bool]], *, keeps: bool) -> list[Any]:
    """Those of a run whose steps come in these parts, the ones with True with a second metric."""
    run, kept = add_run(session, id=uuid4().hex), None
    segment = add_segment(session, run, "a")
    for steps, has_other in parts:
        metrics: dict[str, list[Value]] = {"loss": [math.nan if step % 97 == 0 else step**0.5 for step in steps]}
        metrics |= {"other": [None if step % 3 else 0.1 * step for step in steps]} if has_other else {}
        times = [1.0 * step for step in steps]
        found = writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics=metrics, kept=kept)
        kept = found if keeps else None
    names = {number: name for name, number in rollups.metric_numbers(session, run_pk=run.pk).items()}
    found_rows = session.scalars(sa.select(Rollup).where(Rollup.run_pk == run.pk)).all()
    columns = ("level", "start", *STORED)
    return sorted((names[row.metric], *(getattr(row, name) for name in columns)) for row in found_rows)


def test_a_perplexity_goes_from_its_bucket_with_the_only_loss(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        losses = [1.0 if step == 300 else None for step in range(1024)]
        add_steps(session, run, add_segment(session, run, "a"), range(1024), lr=[0.1] * 1024, loss=losses)
        end_run(session, run)
        numbers = rollups.metric_numbers(session, run_pk=run.pk)
        segment = queries.segments(session, run=run)[0]
        complete_steps(session, run=run, segment=segment, values={300: {"loss": math.nan}}, numbers=numbers)
        found = session.execute(
            sa.select(Rollup.metric, Rollup.level, Rollup.count, Rollup.non_finite).order_by(Rollup.level)
        ).all()
        loss = numbers["loss"]
        assert [row for row in found if row.metric != numbers["lr"]] == [(loss, 1, 0, 1), (loss, 2, 0, 1)]
