from monitor.store_clock import StoreClock


def test_a_clock_that_is_wrong_is_corrected_by_the_database_and_a_right_one_is_left_alone() -> None:
    clock = StoreClock(lambda: 1000.0)
    clock.observe(4600.2, 1000.0)
    assert clock() == 4600.2
    clock.observe(1000.4, 1000.0)
    assert clock() == 1000.0
