"""The cost of each rewind of a run."""

from functools import partial

import pytest
import sqlalchemy as sa

from db import queries
from db.goodput.rollback_costs import Rewind, read_rewinds, total_seconds
from db.store.engine import reading, writing
from tests.dashboard.seed import REWIND, SEGMENT_END, seed
from tests.db.seed import add_rollbacks, add_run, num_calls, stored_run


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
