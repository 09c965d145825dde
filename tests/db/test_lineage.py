"""The tree of segments and the live line through it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from db.lineage import Stretch, discarded, live_line, parent_at
from db.models import Segment


def segment(number: int, parent: int | None, fork_step: int | None, last_step: int | None = None) -> Segment:
    return Segment(number=number, parent=parent, fork_step=fork_step, last_step=last_step)


def test_a_run_without_segments_has_no_live_line() -> None:
    assert live_line([]) == []


def test_a_rollback_cuts_the_parent_at_the_fork_step() -> None:
    tree = [segment(0, None, 0, 149), segment(1, 0, 100, 199)]
    assert live_line(tree) == [Stretch(0, 0, 100), Stretch(1, 100, None)]
    assert discarded(tree) == [Stretch(0, 100, 150)]


def test_a_deeper_second_rollback_drops_the_first_one_from_the_line() -> None:
    tree = [segment(0, None, 0, 300), segment(1, 0, 200, 320), segment(2, 0, 100, 150)]
    assert live_line(tree) == [Stretch(0, 0, 100), Stretch(2, 100, None)]
    assert discarded(tree) == [Stretch(0, 100, 301), Stretch(1, 200, 321)]


def test_a_resume_that_has_not_told_its_first_step_changes_nothing_yet() -> None:
    tree = [segment(0, None, 0, 99), segment(1, None, None)]
    assert live_line(tree) == [Stretch(0, 0, None)]


def test_a_fork_back_to_the_first_step_has_no_parent() -> None:
    tree = [segment(0, None, 0, 50)]
    assert parent_at(tree, 0) is None
    assert parent_at(tree, 1) == 0


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
