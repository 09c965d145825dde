from lossguard.launch.restart_rules import HOUR, MAX_BACKOFF, MAX_FRUITLESS, RestartBudget


def test_so_many_restarts_within_an_hour_and_no_more() -> None:
    budget = RestartBudget(2, 1.0)
    assert [budget.refusal(t, made_progress=True) is None for t in (0.0, 10.0, 20.0, HOUR + 1.0, HOUR + 2.0)] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_starts_without_a_new_step_wait_longer_and_longer_and_are_a_crash_loop_in_the_end() -> None:
    budget = RestartBudget(100, 1.0)
    pauses = []
    while budget.refusal(0.0, made_progress=False) is None:
        pauses.append(budget.pause())
    assert pauses == [1.0, 2.0, 4.0]
    assert budget.num_fruitless == MAX_FRUITLESS
    assert budget.refusal(0.0, made_progress=True) is None
    assert budget.pause() == 1.0
    assert RestartBudget(1, 1e6).pause() == MAX_BACKOFF
