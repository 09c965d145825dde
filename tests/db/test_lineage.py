"""The tree of segments and the live line through it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from db.lineage import (
    Fork,
    Line,
    StepRange,
    discarded,
    forks,
    line_to,
    live_line,
    parent_at,
    source_of,
    step_ranges,
    tree,
)
from db.models import Event, Segment
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from tests.db.seed import num_calls


def segment(number: int, parent: int | None, fork_step: int | None, last_step: int | None = None) -> Segment:
    first_step = None if last_step is None else fork_step
    return Segment(
        number=number, parent=parent, fork_step=fork_step, first_step=first_step, last_step=last_step, live_order=number
    )


def test_a_rollback_cuts_the_parent_at_the_fork_step() -> None:
    tree = [segment(0, None, 0, 149), segment(1, 0, 100, 199)]
    assert live_line(tree) == [StepRange(0, 0, 100), StepRange(1, 100, None)]
    assert discarded(tree) == [StepRange(0, 100, 150)]


def test_a_deeper_second_rollback_drops_the_first_one_from_the_line() -> None:
    tree = [segment(0, None, 0, 300), segment(1, 0, 200, 320), segment(2, 0, 100, 150)]
    assert live_line(tree) == [StepRange(0, 0, 100), StepRange(2, 100, None)]
    assert discarded(tree) == [StepRange(0, 100, 301), StepRange(1, 200, 321)]


def test_a_resume_whose_first_step_is_unknown_changes_nothing_yet() -> None:
    tree = [segment(0, None, 0, 99), segment(1, None, None)]
    assert live_line(tree) == [StepRange(0, 0, None)]
    assert live_line([]) == []


def test_a_fork_back_to_the_first_step_has_no_parent() -> None:
    tree = [segment(0, None, 0, 50)]
    assert parent_at(tree, 0) is None
    assert parent_at(tree, 1) == 0


def test_the_tree_holds_the_branches_of_every_segment() -> None:
    segments = [segment(0, None, 0, 300), segment(1, 0, 200, 320), segment(2, 0, 100, 150), segment(3, None, 0, 9)]
    assert tree(segments) == {None: [0, 3], 0: [1, 2]}
    assert line_to(segments, 1) == [StepRange(0, 0, 200), StepRange(1, 200, None)]


def test_a_segment_with_steps_before_its_fork_has_them_on_no_live_line() -> None:
    early = segment(1, 0, 100, 120)
    early.first_step = 90
    assert discarded([segment(0, None, 0, 149), early]) == [StepRange(0, 100, 150), StepRange(1, 90, 100)]


trees = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=10)


@given(trees)
def test_every_step_of_every_segment_is_live_or_discarded_and_no_step_is_live_twice(
    forks: list[tuple[int, int]],
) -> None:
    segments: list[Segment] = []
    for number, (fork, length) in enumerate(forks):
        segments.append(segment(number, parent_at(segments, fork), fork, fork + length))
    live, left = live_line(segments), discarded(segments)
    assert live[-1].segment == len(segments) - 1
    assert all(earlier.last == later.first for earlier, later in itertools.pairwise(live))
    for one in segments:
        assert one.first_step is not None
        assert one.last_step is not None
        for step in range(one.first_step, one.last_step + 1):
            held = [
                step_range
                for step_range in (*live, *left)
                if step_range.segment == one.number and step_range.holds(step)
            ]
            assert len(held) == 1, (one.number, step)
    assert all(sum(step_range.holds(step) for step_range in live) <= 1 for step in range(100))
    assert step_ranges(segments, Line.LIVE) == live
    assert step_ranges(segments, Line.DISCARDED) == left
    assert step_ranges(segments, Line.ALL) == [StepRange(number, 0, None) for number in range(len(segments))]


def test_the_newest_event_says_how_the_rows_are_made() -> None:
    events = [Event(kind="source", details=SourceFacts(stride=stride).to_details()) for stride in (5, 10)]
    assert source_of([]) == source_of([Event(kind="note", details={})]) == EVERY_STEP
    assert source_of([*events, Event(kind="note", details={"stride": 7})]) == SourceFacts(stride=10)


def test_an_event_of_a_loop_that_has_the_same_kind_says_nothing_of_the_rows() -> None:
    known = Event(kind="source", details=SourceFacts(stride=10).to_details())
    assert source_of([known, Event(kind="source", details={"name": "c4"})]) == SourceFacts(stride=10)


def num_steps(fork: Fork) -> int:
    """Steps that the fork discarded."""
    return sum((one.last or 0) - one.first for one in fork.discarded)


def test_a_deeper_fork_discards_two_branches_and_no_step_twice() -> None:
    first, second = forks([segment(0, None, 0, 399), segment(1, 0, 300, 349), segment(2, 0, 250, 500)])
    assert num_steps(first) == 100  # 300 .. 399 of segment 0
    assert [(one.segment, one.first, one.last) for one in second.discarded] == [(0, 250, 300), (1, 300, 350)]


def test_a_restart_that_loses_no_step_is_no_fork() -> None:
    assert forks([segment(0, None, 0, 99), segment(1, 0, 100, 200)]) == []


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=8))
def test_every_step_that_is_on_no_live_line_is_discarded_once(lengths: list[tuple[int, int]]) -> None:
    tree = [segment(0, None, 0, 50)]
    for number, (fork, length) in enumerate(lengths, 1):
        first = min(fork, (tree[-1].last_step or 0) + 1)
        tree.append(segment(number, parent_at(tree, first), first, first + length - 1))
    left = sum((one.last or 0) - one.first for one in discarded(tree))
    assert sum(map(num_steps, forks(tree))) == left


def test_forks_of_a_long_line_are_found_in_one_pass() -> None:
    def deep(count: int) -> list[Segment]:
        return [segment(number, number - 1 if number else None, 5 * number, 5 * number + 9) for number in range(count)]

    few, many = deep(200), deep(2000)
    assert num_calls(lambda: forks(many)) < 11 * num_calls(lambda: forks(few))
