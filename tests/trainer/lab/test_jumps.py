import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from trainer.lab.jumps import find_jumps

losses = st.lists(st.floats(0.01, 10.0) | st.sampled_from([math.nan, math.inf]), max_size=200)


def test_a_jump_has_the_step_level_peak_and_length_of_the_five_step_means() -> None:
    """Ten losses of 3: the means are 1.4, 1.8, 2.2, 2.6, 3, .., 3, 2.6, 2.2, 1.8, 1.4, 1; the bound is 1.5."""
    (jump,) = find_jumps([1.0] * 100 + [3.0] * 10 + [1.0] * 100)
    assert (jump.begin, jump.end, jump.level, jump.peak) == (101, 114, 1.0, 3.0)
    assert (jump.size, jump.num_steps) == (3.0, 13)


def test_two_jumps_are_two_only_if_the_loss_was_back_between_them() -> None:
    apart = [1.0] * 100 + [3.0] * 10 + [1.0] * 60 + [3.0] * 10 + [1.0] * 60
    assert [jump.begin for jump in find_jumps(apart)] == [101, 171]
    joined = [1.0] * 100 + [3.0] * 10 + [1.3] * 60 + [3.0] * 10 + [1.0] * 60
    assert [jump.num_steps for jump in find_jumps(joined)] == [83]


def test_a_jump_that_never_ends_lasts_to_the_end_and_numbers_that_are_not_finite_are_one() -> None:
    (jump,) = find_jumps([1.0] * 100 + [math.nan] * 50)
    assert (jump.begin, jump.end, jump.size) == (100, 150, math.inf)


@given(losses)
def test_jumps_are_in_order_and_apart_within_the_run(values: list[float]) -> None:
    jumps = find_jumps(values)
    assert all(jump.begin < jump.end <= len(values) for jump in jumps)
    assert all(first.end < second.begin for first, second in itertools.pairwise(jumps))
    assert all(jump.size >= 1.5 for jump in jumps)
