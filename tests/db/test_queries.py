"""Series are exact, and lines are live."""

import math
import uuid

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import commands, lineage, queries
from db.lineage import Line, StepRange
from db.models import Base, Step
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import SegmentReason
from tests.db.seed import NOW, add_run, add_segment, add_steps


@pytest.fixture
def forked(engine: sa.Engine) -> sa.Engine:
    """Steps 0-149, then 100-199 again, as after a rollback to 100."""
    with writing(engine) as session:
        run = add_run(session)
        old = add_segment(session, run, "a")
        add_steps(session, run, old, range(150), loss=[float(step) for step in range(150)])
        new = add_segment(session, run, "b", fork_step=100)
        add_steps(session, run, new, range(100, 200), loss=[-float(step) for step in range(100, 200)])
    return engine


@pytest.mark.parametrize(
    ("fork_step", "number"), [(0, 0), (99, 0), (100, 1), (101, 1), (119, 1), (120, None), (149, None), (150, None)]
)
def test_the_record_of_a_segment_began_in_the_same_state(engine: sa.Engine, fork_step: int, number: int | None) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[0.0] * 150)
        again = add_segment(session, run, "b", fork_step=100)
        add_steps(session, run, again, range(100, 120), loss=[0.0] * 20)
        record = queries.newest_record_of(session, run=run, segment=add_segment(session, run, "c", fork_step=fork_step))
        assert (None if record is None else record.number) == number


def test_the_live_line_takes_each_step_from_where_it_counts(forked: sa.Engine) -> None:
    with reading(forked) as session:
        run = queries.runs(session)[0]
        live = queries.series(session, run=run, step_ranges=queries.live(session, run=run), metric="loss")
        assert live.first_step == list(range(200))
        assert live.last == [float(step) for step in range(100)] + [-float(step) for step in range(100, 200)]
        newest = queries.newest_step(session, run=run)
        assert newest is not None
        assert (newest.segment, newest.step) == (1, 199)


def test_discarded_steps_stay_readable(forked: sa.Engine) -> None:
    with reading(forked) as session:
        run = queries.runs(session)[0]
        old = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss")
        assert old.last[-1] == 149.0


def test_steps_on_discarded_branches_are_consumed_but_not_effective(forked: sa.Engine) -> None:
    with reading(forked) as session:
        run = queries.runs(session)[0]
        assert queries.step_counts(session, run=run) == queries.StepCounts(consumed=250, effective=200)


def test_a_step_that_was_computed_twice_has_the_time_of_the_line_that_is_asked_for(forked: sa.Engine) -> None:
    with writing(forked) as session:
        run = queries.runs(session)[0]
        again = sa.update(Step).where(Step.segment == 1, Step.step == 120)
        session.execute(again.values(time=9.0))
        line = queries.live(session, run=run)
        assert queries.times(session, run=run, step_ranges=line, steps=[120, 1, 999]) == {1: NOW + 1, 120: 9.0}
        assert queries.times(session, run=run, step_ranges=[StepRange(0, 0, None)], steps=[120]) == {120: NOW + 120}


def test_all_branches_need_one_query_each(forked: sa.Engine) -> None:
    with reading(forked) as session:
        run = queries.runs(session)[0]
        step_ranges = {line: queries.step_ranges(session, run=run, line=line) for line in Line}
        assert step_ranges[Line.LIVE] == [StepRange(0, 0, 100), StepRange(1, 100, None)]
        assert step_ranges[Line.DISCARDED] == [StepRange(0, 100, 150)]
        assert step_ranges[Line.ALL] == [StepRange(0, 0, None), StepRange(1, 0, None)]
        assert queries.tree(session, run=run) == {None: [0], 0: [1]}
        left = queries.series(session, run=run, step_ranges=step_ranges[Line.DISCARDED], metric="loss")
        assert (left.first_step, left.last[-1]) == (list(range(100, 150)), 149.0)


def test_one_step_spikes_are_in_the_buckets(engine: sa.Engine) -> None:
    loss = [1.0] * 5000
    injected = range(37, 5000, 250)
    for step in injected:
        loss[step] = 9.0
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(5000), loss=loss)
        series = queries.series(session, run=run, step_ranges=queries.live(session, run=run), metric="loss", points=100)
        assert len(series) <= 101
        assert sum(value == 9.0 for value in series.max) == len(injected)
        assert sum(series.count) == 5000


def test_values_that_are_not_finite_are_counted_and_poison_nothing(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(4), loss=[1.0, math.nan, math.inf, 3.0])
        series = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=1)
        assert (series.min, series.max, series.mean, series.last) == ([1.0], [3.0], [2.0], [3.0])
        assert (series.count, series.non_finite) == ([2], [2])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.none() | st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60),
    points=st.integers(1, 20),
    name=st.sampled_from(["loss", "custom"]),
)
def test_buckets_agree_with_a_plain_loop(
    sqlite_engine: sa.Engine, values: list[float | None], points: int, name: str
) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session, uuid.uuid4().hex)
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(len(values)), **{name: values})
        series = queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric=name, points=points)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    assert sum(series.count) == len(finite)
    assert sum(series.non_finite) == sum(value is not None and math.isnan(value) for value in values)
    if finite:
        # SQLite reads a number out of JSON to the last bit or one off it; a typed column is exact.
        within = 1e-15 if name == "custom" else 0.0
        assert max(value for value in series.max if value is not None) == pytest.approx(
            max(finite), rel=within, abs=0.0
        )
        assert min(value for value in series.min if value is not None) == pytest.approx(
            min(finite), rel=within, abs=0.0
        )
        assert [value for value in series.last if value is not None][-1] == pytest.approx(
            finite[-1], rel=within, abs=0.0
        )


def test_the_newest_steps_come_from_the_live_line_in_order(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(150))
        forked = add_segment(session, run, "b", fork_step=100)
        segment, before = queries.newest_times(session, run=run, count=3)
        assert (segment, [step for step, _ in before]) == (0, [97, 98, 99])
        add_steps(session, run, forked, range(100, 102))
    with reading(engine) as session:
        run = queries.runs(session)[0]
        segment, after = queries.newest_times(session, run=run, count=3)
        assert (segment, [step for step, _ in after]) == (1, [100, 101])


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 12)), st.integers(0, 5)), max_size=14), st.integers(0, 14)
)
def test_the_end_of_the_live_line_is_read_without_the_rest(forks: list[tuple[int | None, int]], step: int) -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        run = add_run(session)
        for number, (fork_step, opened_at) in enumerate(forks):
            segments = queries.segments(session, run=run)
            segment, _ = commands.open_segment(
                session,
                run=run,
                key=str(number),
                fork_step=fork_step,
                reason=SegmentReason.REWIND,
                order_id=None,
                opened_at=float(opened_at),
            )
            assert segment.parent == (None if fork_step is None else lineage.parent_at(segments, fork_step))
        line = queries.live(session, run=run)
        end = queries.live_since(session, run=run, step=step)
        assert end == line[len(line) - len(end) :]
        assert end == line or end[0].first <= step
    engine.dispose()


def test_a_person_means_a_run_by_id_or_its_beginning_by_name_or_by_project_and_name(engine: sa.Engine) -> None:
    with writing(engine) as session:
        for number, run_id in enumerate(("a-1", "a-2", "a%", "b")):
            add_run(session, run_id, name=f"name {run_id}", started_at=float(number))
        session.flush()
        texts = ("a-", "b", "name a-1", "gpt/name a-2", "a%", "name", "")
        found = {text: [run.id for run in queries.runs_called(session, text=text)] for text in texts}
    assert found == {
        "a-": ["a-2", "a-1"], "b": ["b"], "name a-1": ["a-1"], "gpt/name a-2": ["a-2"], "a%": ["a%"], "name": [],
        "": ["b", "a%", "a-2", "a-1"],
    }  # fmt: skip
