from lossguard.launch.restart_rules import HOUR, MAX_BACKOFF, MAX_FRUITLESS, MIN_STEPS, HangDetector, RestartBudget


def steady(seconds: float, num_steps: int) -> tuple[HangDetector, float]:
    """A detector that has seen so many steps of so many seconds, and the time of the last one."""
    detector = HangDetector()
    for step in range(num_steps):
        detector.observe(step, step * seconds)
    return detector, (num_steps - 1) * seconds


def test_a_hang_is_several_times_the_longest_recent_step_and_never_less_than_a_minute() -> None:
    detector, now = steady(30.0, 50)
    assert detector.silent_for(now + 149.0) is None
    assert detector.silent_for(now + 151.0) == 151.0
    detector, now = steady(0.125, 50)
    assert detector.silent_for(now + 59.0) is None
    assert detector.silent_for(now + 61.0) == 61.0


def test_neither_an_evaluation_that_comes_again_is_a_hang_nor_anything_before_it_is_known_what_is_usual() -> None:
    detector, now = steady(1.0, 50)
    detector.observe(50, now + 100.0)
    assert detector.silent_for(now + 100.0 + 400.0) is None
    detector, now = steady(1.0, MIN_STEPS)
    assert detector.silent_for(now + 1e6) is None


def test_the_start_up_of_another_child_is_no_step() -> None:
    detector, now = steady(1.0, 50)
    detector.begin(49)
    for later in (1.0, 1e6):
        detector.observe(49, now + later)  # that of the child before, until this one has logged
        assert detector.silent_for(now + 1e6) is None
    detector.observe(30, now + 1e6)
    assert detector.limit() == 60.0


def test_steps_that_are_shorter_than_the_pause_between_two_looks_count_all() -> None:
    detector = HangDetector(min_seconds=1.0)
    for look in range(4):
        detector.observe(10 * look, 0.125 * look)
    assert detector.limit() == 1.0


def test_a_suspension_of_the_launcher_and_its_command_is_no_hang() -> None:
    detector, now = steady(1.0, 50)
    detector.look(now)
    detector.look(now + 3600.0)  # continued after Ctrl-Z
    assert detector.silent_for(now + 3600.0) is None
    for seconds in range(3601, 3662):
        detector.look(now + seconds)
    assert detector.silent_for(now + 3661.0) == 61.0


def test_so_many_restarts_within_an_hour_and_no_more() -> None:
    budget = RestartBudget(2, 1.0)
    times = (0.0, 10.0, 20.0, HOUR + 1.0, HOUR + 2.0)
    assert [budget.refusal(t, made_progress=True) is None for t in times] == [True, True, False, True, False]


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
