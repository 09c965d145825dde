"""Tokens per second of a run that does not report them."""

from dashboard.data.throughput import derivable, throughput
from tests.dashboard.series import plain


def test_it_is_tokens_over_time_between_neighbours() -> None:
    found = throughput(plain([100.0, 200.0, 400.0]), {0: 10.0, 1: 11.0, 2: 11.5})
    assert (found.last_step, found.mean) == ([1, 2], [100.0, 400.0])


def test_a_step_without_tokens_or_without_time_is_left_out_and_a_clock_that_stands_still_divides_nothing() -> None:
    found = throughput(plain([100.0, None, 300.0, 400.0]), {0: 10.0, 1: 11.0, 2: 12.0, 3: 12.0})
    assert (found.last_step, found.mean) == ([2], [100.0])


def test_it_is_not_derived_where_it_is_reported() -> None:
    assert derivable(["loss", "tokens"])
    assert not derivable(["tokens", "tokens_per_second"])
    assert not derivable(["loss"])
