"""What each way back of a run cost."""

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from dashboard.data.rollback_costs import given_up, read_rewinds
from db import lineage, queries
from db.engine import reading
from db.models import Segment
from tests.dashboard.seed import LEFT, REWIND, seed


def segment(number: int, parent: int | None, first: int, last: int, reason: str = "rollback") -> Segment:
    return Segment(
        number=number, parent=parent, fork_step=first, first_step=first, last_step=last, opened_at=float(number),
        reason=reason, num_steps=last - first + 1,
    )  # fmt: skip


def test_a_rollback_gives_up_what_was_done_from_its_fork_on() -> None:
    (way,) = given_up([segment(0, None, 0, 427, "start"), segment(1, 0, 300, 799)])
    assert (way.segment, way.fork, way.steps) == (1, 300, 128)


def test_a_deeper_rollback_gives_up_two_branches_and_nothing_twice() -> None:
    tree = [segment(0, None, 0, 399, "start"), segment(1, 0, 300, 349), segment(2, 0, 250, 500)]
    first, second = given_up(tree)
    assert first.steps == 100  # 300 .. 399 of segment 0
    assert [(one.segment, one.first, one.last) for one in second.left] == [(0, 250, 300), (1, 300, 350)]


def test_a_restart_that_lost_nothing_is_no_way_back() -> None:
    assert given_up([segment(0, None, 0, 99, "start"), segment(1, 0, 100, 200, "resume")]) == []


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=8))
def test_every_step_that_is_on_no_live_line_is_given_up_once(forks: list[tuple[int, int]]) -> None:
    tree = [segment(0, None, 0, 50, "start")]
    for number, (fork, length) in enumerate(forks, 1):
        first = min(fork, (tree[-1].last_step or 0) + 1)
        tree.append(segment(number, lineage.parent_at(tree, first), first, first + length - 1))
    left = sum((one.last or 0) - one.first for one in lineage.discarded(tree))
    assert sum(way.steps for way in given_up(tree)) == left


def test_what_was_given_up_is_told_in_tokens_and_time_and_for_its_incident(engine: sa.Engine) -> None:
    seed(engine, now=1e9)
    with reading(engine) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        orders = {order.intervention: order for order in queries.orders(session, run=run)}
        (way,) = read_rewinds(session, run=run, segments=queries.segments(session, run=run), orders=orders)
    assert way.steps == LEFT - REWIND
    assert way.tokens == (LEFT - REWIND) * 32 * 256
    assert way.seconds == pytest.approx(0.4 * (LEFT - REWIND))
