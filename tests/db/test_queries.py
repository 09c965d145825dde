"""Series are exact, and lines are live."""

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import commands, lineage, queries
from db.lineage import Line, StepRange
from db.models import Base, Run, Step
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.protocol import PROBE
from lossguard.vocabulary.source_facts import SOURCE
from lossguard.vocabulary.states import SegmentReason
from tests.db.seed import NOW, add_rollbacks, add_run, add_segment, add_steps, statements_of


@pytest.fixture
def forked(sqlite_engine: sa.Engine) -> sa.Engine:
    """Steps 0-149, then 100-199 again, as after a rollback to 100."""
    with writing(sqlite_engine) as session:
        run = add_run(session)
        old = add_segment(session, run, "a")
        add_steps(session, run, old, range(150), loss=[float(step) for step in range(150)])
        new = add_segment(session, run, "b", fork_step=100)
        add_steps(session, run, new, range(100, 200), loss=[-float(step) for step in range(100, 200)])
    return sqlite_engine


def test_the_record_of_a_segment_began_in_the_same_state(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[0.0] * 150)
    add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 120), loss=[0.0] * 20)
    for fork_step, number in ((150, None), (149, None), (120, None), (119, 1), (101, 1), (100, 1), (99, 0), (0, 0)):
        with session.begin_nested() as attempt:
            segment = add_segment(session, run, "c", fork_step=fork_step)
            record = queries.newest_record_of(session, run=run, segment=segment)
            assert (None if record is None else record.number) == number, fork_step
            attempt.rollback()


def test_every_line_takes_each_step_from_where_it_counts(forked: sa.Engine) -> None:
    with reading(forked) as session:
        run = queries.runs(session)[0]
        step_ranges = {line: queries.step_ranges(session, run=run, line=line) for line in Line}
        assert (
            step_ranges[Line.LIVE] == queries.live(session, run=run) == [StepRange(0, 0, 100), StepRange(1, 100, None)]
        )
        assert step_ranges[Line.DISCARDED] == [StepRange(0, 100, 150)]
        assert step_ranges[Line.ALL] == [StepRange(0, 0, None), StepRange(1, 0, None)]
        assert queries.tree(session, run=run) == {None: [0], 0: [1]}
        live = queries.series(session, run=run, step_ranges=step_ranges[Line.LIVE], metric="loss")
        assert live.first_step == list(range(200))
        assert live.last == [float(step) for step in range(100)] + [-float(step) for step in range(100, 200)]
        left = queries.series(session, run=run, step_ranges=step_ranges[Line.DISCARDED], metric="loss")
        assert (left.first_step, left.last[-1]) == (list(range(100, 150)), 149.0)
        newest = queries.newest_step(session, run=run)
        assert newest is not None
        assert (newest.segment, newest.step) == (1, 199)
        assert queries.step_counts(session, run=run) == queries.StepCounts(consumed=250, effective=200)


def test_of_many_events_the_newest_are_read_and_those_that_say_how_rows_are_made(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_EVENTS", 3)
    event: dict[str, Any] = {"segment": 0, "step": 1, "time": NOW, "details": {}}
    kinds = (SOURCE, "note", "note", PROBE, "note", "note", "note")
    with writing(engine) as session:
        run, other = add_run(session), add_run(session, "other")
        for each in (other, run):
            keyed = [{"key": str(number), "kind": kind, **event} for number, kind in enumerate(kinds)]
            commands.add_events(session, run=each, events=keyed)
        assert [each.key for each in queries.newest_events(session, run=run)] == ["0", "4", "5", "6"]
        assert [each.key for each in queries.source_events(session, run=run)] == ["0"]
        assert len(queries.events(session, run=run)) == 6


def test_the_steps_of_all_discarded_branches_are_counted_by_as_many_statements_as_those_of_one(
    sqlite_engine: sa.Engine,
) -> None:
    statements = statements_of(sqlite_engine)

    def num_statements(run_id: str, num_forks: int) -> int:
        with writing(sqlite_engine) as session:
            run = add_run(session, run_id)
            add_rollbacks(session, run, num_forks + 1)
        with reading(sqlite_engine) as session:
            run = session.get_one(Run, run.pk)
            statements.clear()
            counts = queries.step_counts(session, run=run)
            assert counts == queries.StepCounts(10 * (num_forks + 1), 5 * num_forks + 10)
            return len(statements)

    assert num_statements("r1", 1) == num_statements("r2", 8)


def test_a_step_that_was_computed_twice_has_the_time_of_the_line_that_is_asked_for(forked: sa.Engine) -> None:
    with writing(forked) as session:
        run = queries.runs(session)[0]
        again = sa.update(Step).where(Step.segment == 1, Step.step == 120)
        session.execute(again.values(time=9.0))
        line = queries.live(session, run=run)
        assert queries.times(session, run=run, step_ranges=line, steps=[120, 1, 999]) == {1: NOW + 1, 120: 9.0}
        assert queries.times(session, run=run, step_ranges=[StepRange(0, 0, None)], steps=[120]) == {120: NOW + 120}


def test_one_step_spikes_are_in_the_buckets(sqlite_engine: sa.Engine) -> None:
    loss = [1.0] * 5000
    injected = range(37, 5000, 250)
    for step in injected:
        loss[step] = 9.0
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(5000), loss=loss)
        series = queries.series(session, run=run, step_ranges=queries.live(session, run=run), metric="loss", points=100)
        assert len(series) <= 101
        assert sum(value == 9.0 for value in series.max) == len(injected)
        assert sum(series.count) == 5000


def test_the_newest_steps_come_from_the_live_line_in_order(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(150))
        forked = add_segment(session, run, "b", fork_step=100)
        segment, before = queries.newest_times(session, run=run, count=3)
        assert (segment, [step for step, _ in before]) == (0, [97, 98, 99])
        add_steps(session, run, forked, range(100, 102))
    with reading(sqlite_engine) as session:
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
            segment = commands.open_segment(
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
