"""The tree of segments and the live line through it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from db.lineage import Line, StepRange, discarded, line_to, live_line, parent_at, source_of, step_ranges, tree
from db.models import Event, Segment
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts


def segment(number: int, parent: int | None, fork_step: int | None, last_step: int | None = None) -> Segment:
    first_step = None if last_step is None else fork_step
    return Segment(number=number, parent=parent, fork_step=fork_step, first_step=first_step, last_step=last_step)


def test_a_run_without_segments_has_no_live_line() -> None:
    assert live_line([]) == []


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


def test_a_fork_back_to_the_first_step_has_no_parent() -> None:
    tree = [segment(0, None, 0, 50)]
    assert parent_at(tree, 0) is None
    assert parent_at(tree, 1) == 0


def test_the_tree_holds_the_branches_of_every_segment() -> None:
    segments = [segment(0, None, 0, 300), segment(1, 0, 200, 320), segment(2, 0, 100, 150), segment(3, None, 0, 9)]
    assert tree(segments) == {None: [0, 3], 0: [1, 2]}
    assert line_to(segments, 1) == [StepRange(0, 0, 200), StepRange(1, 200, None)]


def test_a_segment_with_steps_before_its_fork_has_them_on_no_live_line() -> None:
    early = Segment(number=1, parent=0, fork_step=100, first_step=90, last_step=120)
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


@given(st.lists(st.integers(0, 60), max_size=12))
def test_the_live_line_covers_every_step_at_most_once_and_in_order(forks: list[int]) -> None:
    tree: list[Segment] = [segment(0, None, 0, 30)]
    for fork in forks:
        tree.append(segment(len(tree), parent_at(tree, fork), fork, fork + 10))
    line = live_line(tree)
    assert line[-1].segment == len(tree) - 1
    for earlier, later in itertools.pairwise(line):
        assert earlier.last == later.first
        assert earlier.first < later.first


def test_the_newest_event_says_how_the_rows_are_made() -> None:
    events = [Event(kind="source", details=SourceFacts(stride=stride).to_details()) for stride in (5, 10)]
    assert source_of([]) == source_of([Event(kind="note", details={})]) == EVERY_STEP
    assert source_of([*events, Event(kind="note", details={"stride": 7})]) == SourceFacts(stride=10)


def test_an_event_of_a_loop_that_has_the_same_kind_says_nothing_of_the_rows() -> None:
    known = Event(kind="source", details=SourceFacts(stride=10).to_details())
    assert source_of([known, Event(kind="source", details={"name": "c4"})]) == SourceFacts(stride=10)
