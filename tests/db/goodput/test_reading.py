"""The time of stored runs by cause: on both databases, and the same however coarsely a run is read at first."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import commands, queries
from db.goodput import reading as goodput
from db.goodput.accounting import TimeCause
from db.models import Base, Run, Segment
from db.steps import writer
from db.store.engine import create_engine, reading, writing
from lossguard.vocabulary.states import OrderState, RunState, SegmentReason
from tests.db.seed import NOW, add_rollbacks, add_run, add_segment, num_calls, statements_of, stored_run

STARTUP = 7.0


def open_segment(
    session: Session, run: Run, fork: int | None, reason: SegmentReason, at: float, *, is_beside: bool = False
) -> Segment:
    key = f"{fork} {at}"
    return commands.open_segment(
        session, run=run, key=key, fork_step=fork, reason=reason, order_id=None, opened_at=NOW + at, is_beside=is_beside
    )


def report(
    session: Session, run: Run, segment: Segment, steps: Sequence[int], times: Sequence[float], **metrics: Any
) -> None:
    """Steps at these seconds since NOW."""
    columns = {"loss": [1.0] * len(steps), **metrics}
    at = [NOW + time for time in times]
    writer.insert_steps(session, segment=segment, steps=steps, times=at, metrics=columns)


@contextmanager
def counting(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that are executed within."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    yield statements
    sa.event.remove(engine, "before_cursor_execute", note)


def spent(session: Session, run: Run, *, at: float) -> dict[str, float]:
    found = goodput.breakdown(session, run=run, now=NOW + at)
    assert found.total == pytest.approx(max(0.0, NOW + at - run.started_at))
    return {cause: round(seconds, 3) for cause, seconds in found.seconds.items() if seconds > 1e-4}


def seed(session: Session) -> Run:
    """A second a step, a rollback from 400 to 300, a restart from 500 to 450, a hang of 1000 s at step 600."""
    run = add_run(session, started_at=NOW - STARTUP)
    first = open_segment(session, run, 0, SegmentReason.START, 0.0)
    saves = [5.0 if step % 100 == 50 else None for step in range(400)]
    late = [5.0 * ((step + 50) // 100) for step in range(400)]
    times = [step + 1 + more for step, more in zip(range(400), late, strict=True)]  # 420 s
    report(session, run, first, range(400), times, checkpoint_seconds=saves)
    second = open_segment(session, run, 300, SegmentReason.ROLLBACK, 430.0)
    report(session, run, second, range(300, 500), [131.0 + step for step in range(300, 500)])
    third = open_segment(session, run, 450, SegmentReason.RESUME, 700.0)
    hangs = [1000.0 if step >= 600 else 0.0 for step in range(450, 700)]
    report(session, run, third, range(450, 700), [251.0 + step + more for step, more in enumerate(hangs, 450)])
    return run


EXPECTED = {
    TimeCause.STARTUP: STARTUP,
    TimeCause.TRAINING: 300.0 + 150 + 250,
    TimeCause.SPIKE: 100.0 + 10,
    TimeCause.CHECKPOINT: 20.0,
    TimeCause.RESTART: 50.0 + 70,
    TimeCause.HANG: 1000.0,
}
END = 1950.0


@pytest.mark.parametrize("max_stretches", [8, 64, 4096])
def test_each_cause_has_its_time_however_coarsely_the_run_is_read_at_first(
    engine: sa.Engine, max_stretches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goodput, "MAX_STRETCHES", max_stretches)
    with writing(engine) as session:
        assert spent(session, seed(session), at=END) == EXPECTED


def test_steps_that_were_discarded_twice_are_lost_once_and_to_what_discarded_them_first(session: Session) -> None:
    run = add_run(session, started_at=NOW)
    for at, fork, reason in (
        (0.0, 0, SegmentReason.START),
        (100.0, 50, SegmentReason.ROLLBACK),
        (150.0, 10, SegmentReason.REWIND),
    ):
        opened = open_segment(session, run, fork, reason, at)
        steps = range(fork, {0: 100, 50: 100, 10: 60}[fork])
        report(session, run, opened, steps, [at + step + 1 - fork for step in steps])
    trained, spike, rewind = 10.0 + 50, 50.0, 50.0 + 40
    assert spent(session, run, at=200.0) == {
        TimeCause.TRAINING: trained,
        TimeCause.SPIKE: spike,
        TimeCause.REWIND: rewind,
    }


def test_a_source_with_a_row_every_so_many_steps_has_the_same_goodput(session: Session) -> None:
    run = add_run(session, started_at=NOW)
    opened = open_segment(session, run, 0, SegmentReason.START, 0.0)
    rows = range(0, 5000, 10)
    late = [(step + 1) * 0.5 + (900.0 if step > 2000 else 0.0) for step in rows]
    report(session, run, opened, rows, late, step_seconds=[0.5] * len(rows))
    found = spent(session, run, at=late[-1])
    assert found == {TimeCause.TRAINING: 2495.5, TimeCause.HANG: 900.0}


def test_the_first_row_of_a_segment_stands_for_its_steps_too(session: Session) -> None:
    """A row every 500 steps of a second each after 30 s of loading, and a restart that goes on at step 1,000."""
    run = add_run(session, started_at=NOW)
    opened = open_segment(session, run, 500, SegmentReason.START, 530.0)  # by its first row
    report(session, run, opened, range(500, 2001, 500), [530.0, 1030.0, 1530.0, 2030.0])
    assert spent(session, run, at=2030.0) == {TimeCause.STARTUP: 30.0, TimeCause.TRAINING: 2000.0}
    again = open_segment(session, run, 1500, SegmentReason.RESUME, 2560.0)
    report(session, run, again, range(1500, 3001, 500), [2560.0, 3060.0, 3560.0, 4060.0])
    found = spent(session, run, at=4060.0)
    assert found == {TimeCause.STARTUP: 30.0, TimeCause.TRAINING: 3000.0, TimeCause.RESTART: 1030.0}


def test_a_loop_that_logs_every_so_many_steps_has_begun_where_its_segment_did(session: Session) -> None:
    run = add_run(session, started_at=NOW)
    opened = open_segment(session, run, 0, SegmentReason.START, 5.0)
    report(session, run, opened, range(9, 100, 10), [5.0 + step + 1 for step in range(9, 100, 10)])
    assert spent(session, run, at=105.0) == {TimeCause.STARTUP: 5.0, TimeCause.TRAINING: 100.0}


def test_a_rollback_between_two_rows_has_trained_only_the_steps_since_its_checkpoint(session: Session) -> None:
    """A row every 500 steps of a second each, and a rollback to step 1,400 whose restore takes 300 s."""
    run = add_run(session, started_at=NOW)
    opened = open_segment(session, run, 0, SegmentReason.START, 0.0)
    report(session, run, opened, range(500, 2001, 500), [501.0, 1001.0, 1501.0, 2001.0])
    back = open_segment(session, run, 1401, SegmentReason.ROLLBACK, 2001.0)
    report(session, run, back, range(1500, 2501, 500), [2401.0, 2901.0, 3401.0])
    found = spent(session, run, at=3401.0)
    assert found == {TimeCause.TRAINING: 1001.0 + 1100.0, TimeCause.SPIKE: 1000.0 + 300.0}


def test_a_hold_ends_with_its_release_or_with_the_next_segment(session: Session) -> None:
    run = add_run(session, started_at=NOW)
    report(session, run, open_segment(session, run, 0, SegmentReason.START, 0.0), range(50), range(1, 51))
    hold: dict[str, Any] = {"incident": None, "kind": "hold", "attempt": 1, "details": {}}
    asked = commands.save_intervention(session, run=run, number=1, now=NOW + 50, state="applied", **hold)
    order = commands.issue_order(session, intervention=asked, reason="", now=NOW + 50)
    commands.answer_order(
        session, order=order, state=OrderState.APPLIED, rewound_to=None, skip_from=None, skip_to=None, detail="",
        now=NOW + 60,
    )  # fmt: skip
    assert spent(session, run, at=500.0)[TimeCause.WAITING] == 440.0
    resumed = open_segment(session, run, 50, SegmentReason.RESUME, 1000.0)
    report(session, run, resumed, range(50, 90), range(1001, 1041))
    restarted = {TimeCause.TRAINING: 90.0, TimeCause.WAITING: 940.0, TimeCause.RESTART: 10.0}
    assert spent(session, run, at=1040.0) == restarted
    commands.save_intervention(session, run=run, number=1, now=NOW + 400, state="released", **hold)
    assert spent(session, run, at=1040.0)[TimeCause.WAITING] == 340.0


@pytest.mark.parametrize("at", [30.0, 55.0, 62.0])
def test_a_segment_beside_the_live_line_takes_no_time_of_the_run_and_ends_no_hold(session: Session, at: float) -> None:
    run = add_run(session, started_at=NOW)
    report(session, run, open_segment(session, run, 0, SegmentReason.START, 0.0), range(50), range(1, 51))
    hold: dict[str, Any] = {"incident": None, "kind": "hold", "attempt": 1, "details": {}}
    asked = commands.save_intervention(session, run=run, number=1, now=NOW + 50, state="applied", **hold)
    order = commands.issue_order(session, intervention=asked, reason="", now=NOW + 50)
    order.state, order.answered_at = OrderState.APPLIED, NOW + 60
    undisturbed = spent(session, run, at=500.0)
    assert undisturbed == {TimeCause.TRAINING: 51.0, TimeCause.OTHER: 9.0, TimeCause.WAITING: 440.0}
    second = open_segment(session, run, 0, SegmentReason.RESUME, at, is_beside=True)
    report(session, run, second, range(5), [at + step for step in range(1, 6)])
    assert spent(session, run, at=500.0) == undisturbed


def test_the_time_of_an_ended_run_stands_still(session: Session) -> None:
    run = add_run(session, started_at=NOW)
    report(session, run, open_segment(session, run, 0, SegmentReason.START, 0.0), range(50), range(1, 51))
    commands.finish_run(session, run=run, state=RunState.FINISHED, at=NOW + 52, now=NOW + 60)
    assert goodput.breakdown(session, run=run, now=NOW + 9e6) == goodput.breakdown(session, run=run, now=NOW)
    assert spent(session, run, at=52.0) == {TimeCause.TRAINING: 50.0, TimeCause.OTHER: 2.0}


def test_a_segment_without_a_step_is_a_restart_that_has_not_trained_yet(session: Session) -> None:
    run = add_run(session, started_at=NOW)
    report(session, run, open_segment(session, run, 0, SegmentReason.START, 0.0), range(50), range(1, 51))
    open_segment(session, run, None, SegmentReason.RESUME, 70.0)
    assert spent(session, run, at=90.0) == {TimeCause.TRAINING: 50.0, TimeCause.RESTART: 40.0}


def test_the_number_of_statements_does_not_grow_with_the_run(sqlite_engine: sa.Engine) -> None:
    counts = []
    for length in (2_000, 20_000):
        with writing(sqlite_engine) as session:
            run = add_run(session, f"r{length}", started_at=NOW)
            opened = open_segment(session, run, 0, SegmentReason.START, 0.0)
            report(session, run, opened, range(length), range(1, length + 1), step_seconds=[1.0] * length)
        with reading(sqlite_engine) as session, counting(sqlite_engine) as statements:
            goodput.breakdown(session, run=queries.runs(session)[0], now=NOW + length)
        counts.append(len(statements))
    assert counts[1] <= 2 * counts[0]


parts = st.tuples(
    st.sampled_from(SegmentReason),
    st.integers(0, 60),  # the fork
    st.lists(st.tuples(st.integers(1, 4), st.floats(-50, 400)), max_size=12),  # (steps on, seconds on)
    st.floats(-100, 1000),  # since the segment before was opened
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(parts, min_size=1, max_size=5), st.floats(-100, 5000), st.sampled_from(RunState))
def test_the_causes_of_any_stored_run_add_up_to_its_time(
    history: list[tuple[SegmentReason, int, list[tuple[int, float]], float]], at: float, state: RunState
) -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with writing(engine) as session:
        run = add_run(session, started_at=NOW)
        opened_at = 0.0
        for reason, fork, rows, later in history:
            opened_at = max(opened_at + 0.001, opened_at + later)
            opened = open_segment(session, run, fork, reason, opened_at)
            on = [(0, 0.0), *rows]
            steps = list(accumulate((steps_on for steps_on, _ in on), initial=fork))[1:]
            times = list(accumulate((seconds_on for _, seconds_on in on), initial=opened_at))[1:]
            if rows:
                report(session, run, opened, steps, times)
        session.flush()
        run.state, run.finished_at = state, NOW + at
        spent(session, run, at=at)
    engine.dispose()


def test_a_gap_in_the_numbers_of_steps_costs_no_further_statements(sqlite_engine: sa.Engine) -> None:
    """Numbers may lie 2**50 apart: cutting such a gap evenly would take a round for each factor of eight."""
    steps = [0, 1, 2, 2**40, 2**50, 2**52]
    with writing(sqlite_engine) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        times = [NOW + 100.0 * index for index in range(len(steps))]
        writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics={"loss": [1.0] * len(steps)})
    statements = statements_of(sqlite_engine)
    with reading(sqlite_engine) as session:
        found = stored_run(session)
        goodput.breakdown(session, run=found, now=times[-1])
    assert len(statements) < 60


@pytest.mark.slow
def test_the_time_of_a_run_is_read_at_a_cost_that_grows_with_its_segments_and_holds(sqlite_engine: sa.Engine) -> None:
    calls: dict[int, int] = {}
    for count in (50, 50, 200):  # the first time, statements are compiled
        with writing(sqlite_engine) as session:
            run = add_run(session, f"{count}-{len(calls)}")
            add_rollbacks(session, run, count)
            for number in range(1, count):
                hold: dict[str, Any] = {"incident": None, "kind": "hold", "attempt": 1, "details": {}}
                begin = NOW + 10 * number - 1
                asked = commands.save_intervention(session, run=run, number=number, now=begin, state="released", **hold)
                order = commands.issue_order(session, intervention=asked, reason="", now=begin)
                order.state, order.answered_at = OrderState.APPLIED, begin
            read = partial(goodput.breakdown, session, run=run, now=NOW + 10 * count)
            read()
            calls[count] = num_calls(read)
    assert calls[200] < 5 * calls[50]
