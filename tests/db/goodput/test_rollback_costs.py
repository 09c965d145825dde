"""The cost of each rewind of a run."""

from functools import partial

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from db import lineage, queries
from db.goodput.rollback_costs import Rewind, find_rewinds, read_rewinds, total_seconds
from db.models import Segment
from db.store.engine import reading, writing
from tests.dashboard.seed import REWIND, SEGMENT_END, seed
from tests.db.seed import add_rollbacks, add_run, num_calls


def segment(number: int, parent: int | None, first: int, last: int, reason: str = "rollback") -> Segment:
    return Segment(
        number=number, parent=parent, fork_step=first, first_step=first, last_step=last, opened_at=float(number),
        reason=reason, num_steps=last - first + 1,
    )  # fmt: skip


def test_a_rollback_discards_the_steps_from_its_fork_on() -> None:
    (rewind,) = find_rewinds([segment(0, None, 0, 427, "start"), segment(1, 0, 300, 799)])
    assert (rewind.segment, rewind.fork_step, rewind.steps) == (1, 300, 128)


def test_a_deeper_rollback_discards_two_branches_and_no_step_twice() -> None:
    tree = [segment(0, None, 0, 399, "start"), segment(1, 0, 300, 349), segment(2, 0, 250, 500)]
    first, second = find_rewinds(tree)
    assert first.steps == 100  # 300 .. 399 of segment 0
    assert [(one.segment, one.first, one.last) for one in second.discarded] == [(0, 250, 300), (1, 300, 350)]


def test_a_restart_that_loses_no_step_is_no_rewind() -> None:
    assert find_rewinds([segment(0, None, 0, 99, "start"), segment(1, 0, 100, 200, "resume")]) == []


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=8))
def test_every_step_that_is_on_no_live_line_is_discarded_once(forks: list[tuple[int, int]]) -> None:
    tree = [segment(0, None, 0, 50, "start")]
    for number, (fork, length) in enumerate(forks, 1):
        first = min(fork, (tree[-1].last_step or 0) + 1)
        tree.append(segment(number, lineage.parent_at(tree, first), first, first + length - 1))
    left = sum((one.last or 0) - one.first for one in lineage.discarded(tree))
    assert sum(rewind.steps for rewind in find_rewinds(tree)) == left


def test_time_that_two_rollbacks_share_is_lost_once() -> None:
    times = [(10.0, 20.0), (15.0, 30.0), (40.0, 41.0), (50.0, None)]
    rewinds = [Rewind(1, "rollback", 0, (), first_done_at=first, done_again_at=again) for first, again in times]
    assert total_seconds(rewinds) == 21
    assert total_seconds(rewinds[-1:]) is None
    assert total_seconds([]) == 0


def test_a_rewind_has_its_tokens_its_time_and_its_incident(engine: sa.Engine) -> None:
    seed(engine, now=1e9)
    with reading(engine) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        orders = {order.intervention: order for order in queries.orders(session, run=run)}
        (rewind,) = read_rewinds(session, run=run, segments=queries.segments(session, run=run), orders=orders)
    assert rewind.steps == SEGMENT_END - REWIND
    assert rewind.tokens == (SEGMENT_END - REWIND) * 32 * 256
    assert rewind.seconds == pytest.approx(0.4 * (SEGMENT_END - REWIND))


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


def test_forks_of_a_long_line_are_found_in_one_pass() -> None:
    def deep(count: int) -> list[Segment]:
        return [segment(number, number - 1 if number else None, 5 * number, 5 * number + 9) for number in range(count)]

    few, many = deep(200), deep(2000)
    assert num_calls(lambda: lineage.forks(many)) < 11 * num_calls(lambda: lineage.forks(few))
