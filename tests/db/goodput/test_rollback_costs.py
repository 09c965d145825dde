"""The cost of each rewind of a run."""

from functools import partial

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.goodput.rollback_costs import Rewind, read_rewinds, total_seconds
from db.models import Run
from db.steps import writer
from db.store.engine import reading, writing
from lossguard.vocabulary.source_facts import SOURCE, SourceFacts
from tests.dashboard.seed import REWIND, SEGMENT_END, seed
from tests.db.seed import add_rollbacks, add_run, add_segment, num_calls, stored_run


def test_time_that_two_rollbacks_share_is_lost_once() -> None:
    times = [(10.0, 20.0), (15.0, 30.0), (40.0, 41.0), (50.0, None)]
    rewinds = [Rewind(1, "rollback", 0, (), first_done_at=first, done_again_at=again) for first, again in times]
    assert total_seconds(rewinds) == 21
    assert total_seconds(rewinds[-1:]) is None
    assert total_seconds([]) == 0


def test_a_rewind_has_its_tokens_its_time_and_its_incident(sqlite_engine: sa.Engine) -> None:
    seed(sqlite_engine, now=1e9)
    with reading(sqlite_engine) as session:
        run = stored_run(session, "spiky-1")
        orders = {order.intervention: order for order in queries.orders(session, run=run)}
        (rewind,) = read_rewinds(session, run=run, segments=queries.segments(session, run=run), orders=orders)
    assert rewind.steps == SEGMENT_END - REWIND
    assert rewind.tokens == (SEGMENT_END - REWIND) * 32 * 256
    assert rewind.seconds == pytest.approx(0.4 * (SEGMENT_END - REWIND))


def test_a_first_row_that_stands_for_many_steps_counts_them_all(sqlite_engine: sa.Engine) -> None:
    """A source with a row every 100 steps goes on at step 2,300 after its row 2,400."""
    with writing(sqlite_engine) as session:
        run = add_run(session)
        details = SourceFacts(stride=100).to_details()
        commands.add_event(session, run=run, key="s", kind=SOURCE, segment=0, step=None, time=0.0, details=details)
        add_rows(session, run, 100, range(100, 2401, 100), begin=0.0)
        add_rows(session, run, 2400, range(2400, 3001, 100), begin=200.0)
        add_rows(session, run, 2400, range(2400, 2501, 100), begin=1000.0)
        rewinds = read_rewinds(session, run=run, segments=queries.segments(session, run=run), orders={})
    assert [(each.steps, each.tokens, each.seconds) for each in rewinds] == [(100, 700.0, 200.0), (700, 4900.0, 800.0)]


def test_a_rollback_whose_first_row_comes_steps_later_has_its_time(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_rows(session, run, 0, range(10, 401, 10), begin=0.0)
        add_rows(session, run, 300, range(310, 501, 10), begin=150.0)
        add_rows(session, run, 295, range(310, 501, 10), begin=400.0)
        rewinds = read_rewinds(session, run=run, segments=queries.segments(session, run=run), orders={})
    assert [(each.fork_step, each.steps, each.seconds) for each in rewinds] == [(300, 101, 150.0), (295, 196, 250.0)]


def add_rows(session: Session, run: Run, fork: int, steps: range, *, begin: float) -> None:
    """A segment with a second and seven tokens a step."""
    segment = add_segment(session, run, f"{fork} {begin}", fork)
    metrics = {"tokens": [7.0 * step for step in steps]}
    times = [begin + step for step in steps]
    writer.insert_steps(session, segment=segment, steps=steps, times=times, metrics=metrics)


@pytest.mark.slow
def test_what_rewinds_cost_is_read_at_a_cost_that_grows_with_the_segments_and_not_with_their_square(
    sqlite_engine: sa.Engine,
) -> None:
    calls: dict[int, int] = {}
    for count in (50, 50, 200):  # the first time, statements are compiled
        with writing(sqlite_engine) as session:
            run = add_run(session, f"{count}-{len(calls)}")
            add_rollbacks(session, run, count)
            segments = queries.segments(session, run=run)
            read = partial(read_rewinds, session, run=run, segments=segments, orders={})
            assert [(one.steps, one.tokens, one.seconds) for one in read()] == [(5, 500.0, 5.0)] * (count - 1)
            calls[count] = num_calls(read)
    assert calls[200] < 5 * calls[50]
