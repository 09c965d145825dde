import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.checkpoints.place import steps_to_delete


def saved(num_steps: int, *, every: int, keep: int) -> list[int]:
    """What is there after a run that saves `every` steps and deletes after every save."""
    steps: list[int] = []
    for step in range(0, num_steps, every):
        steps.append(step)
        steps = [each for each in steps if each not in steps_to_delete(steps, keep=keep)]
    return steps


def test_the_head_is_dense_and_gaps_double_behind_it() -> None:
    assert saved(2000, every=10, keep=5) == [0, 1280, 1600, 1760, 1840, 1920, 1950, 1960, 1970, 1980, 1990]


@pytest.mark.slow
@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 3000), st.integers(1, 60), st.integers(1, 8))
def test_any_age_has_a_checkpoint_not_much_older(num_steps: int, every: int, keep: int) -> None:
    """A rollback that wants to go back n steps never has to go further than eight times that and an interval.

    A doubling of the age can be empty for a while, when its oldest has just grown into the next one, which has an
    older one already. Four times is usual; 4.5 times was met (902 steps, one checkpoint kept at the head).
    """
    steps = saved(num_steps, every=every, keep=keep)
    newest = list(range(0, num_steps, every))[-keep:]
    assert steps[-keep:] == newest
    assert steps[0] == 0
    span = max(1, newest[-1] - newest[0])
    for wanted in range(0, steps[-1] + 1, every):
        at_or_before = max(step for step in steps if step <= steps[-1] - wanted)
        assert steps[-1] - at_or_before <= 8 * max(wanted, span) + every


def test_pinned_checkpoints_stay() -> None:
    assert steps_to_delete([0, 1, 2, 3, 4], keep=1, pinned=[2]) == [
        s for s in steps_to_delete([0, 1, 2, 3, 4], keep=1) if s != 2
    ]
    assert steps_to_delete([], keep=3) == []


def test_where_space_is_short_the_newest_and_some_at_doubling_ages_stay_and_what_is_pinned() -> None:
    steps: list[int] = []
    for step in range(0, 20_000, 50):
        steps.append(step)
        steps = [each for each in steps if each not in steps_to_delete(steps, keep=20, most=5, pinned=[1000])]
        assert steps[-2:] == [step - 50, step][step == 0 :]
        assert len(steps) <= 5
    assert [19_950 - each for each in steps] == [18_950, 250, 100, 50, 0]
    assert steps_to_delete([0, 50], keep=1, most=1) == [0]
