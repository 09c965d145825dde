"""A client cannot use up a budget, so that there is room for the others."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.api.request_limits import Budget, Caller
from monitor.problems import Problem


def num_admitted(budget: Budget, held: ExitStack, who: Caller) -> int:
    """How many requests of the client are admitted at once."""
    for number in range(1000):
        take = held.enter_context(budget.reserve(who))
        try:
            take(1)
        except Problem:
            return number
    raise AssertionError("there is no limit")


def test_a_client_gets_half_and_leaves_room_for_others_with_its_token_or_its_address() -> None:
    budget = Budget(100)
    with ExitStack() as held:
        assert num_admitted(budget, held, Caller("p", "a")) == 50
        assert num_admitted(budget, held, Caller("p", "b")) == 25
        assert num_admitted(budget, held, Caller("q", "a")) == 25
    assert budget.taken == 0


def test_a_token_at_many_addresses_and_an_address_with_many_tokens_get_three_quarters() -> None:
    for clients in ([Caller("p", "a"), Caller("p", "b")], [Caller("p", "a"), Caller("q", "a")]):
        budget = Budget(100)
        with ExitStack() as held:
            assert sum(num_admitted(budget, held, who) for who in clients) == 75
            assert num_admitted(budget, held, Caller("other", "elsewhere")) == 25


def test_one_request_always_has_room_and_a_first_one_may_be_larger_than_a_share() -> None:
    budget = Budget(100)
    with budget.reserve(Caller("p", "a")) as take:
        take(1000)
        take(1000)  # it grows
        take(0)
    with budget.reserve(Caller("p", "a")) as take:
        take(10)
        with budget.reserve(Caller("q", "b")) as take_other:
            take_other(90)
            with pytest.raises(Problem) as refused:
                take(1)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})


def test_what_writes_one_run_gets_a_sixteenth_whoever_sends_it() -> None:
    def num_writes(held: ExitStack, budget: Budget, who: Caller, run_id: str) -> int:
        for number in range(100):
            take = held.enter_context(budget.reserve(who, run_id=run_id))
            try:
                take(1)
            except Problem:
                return number
        raise AssertionError("there is no limit")

    budget = Budget(128)
    with ExitStack() as held:
        assert num_writes(held, budget, Caller("p", "a"), "noisy") == 8
        assert num_writes(held, budget, Caller("q", "b"), "noisy") == 0
        assert num_writes(held, budget, Caller("p", "a"), "quiet") == 8
    assert budget.taken == 0


Step = tuple[int, int, int]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 60)), max_size=30))
def test_a_budget_is_never_exceeded_by_more_than_one_request_and_is_whole_at_the_end(steps: list[Step]) -> None:
    budget = Budget(100)
    with ExitStack() as held:
        takes: dict[tuple[int, int], Callable[[int], None]] = {}
        for principal, address, amount in steps:
            if (principal, address) not in takes:
                who = Caller(str(principal), str(address))
                takes[principal, address] = held.enter_context(budget.reserve(who))
            before = budget.taken
            try:
                takes[principal, address](amount)
            except Problem:
                assert budget.taken == before
            assert budget.taken <= 100 or len(set(budget._taken_by)) == 3  # it is alone
    assert (budget.taken, dict(budget._taken_by)) == (0, {})


def test_the_client_of_a_request_is_its_token_and_its_address() -> None:
    assert Caller.of({"type": "http", "client": ("10.0.0.1", 1)}) == Caller("", "10.0.0.1")
    assert Caller.of({"type": "http"}) == Caller("", "")
