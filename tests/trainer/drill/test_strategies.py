import math

import pytest

from trainer.drill.strategies import FixedPalm, SkipStep, Window


def filled(window: Window, values: int = 128) -> Window:
    for number in range(values):
        assert not window.is_outlier(3.0 + 0.1 * (number % 2))
    return window


@pytest.mark.parametrize(("value", "outlier"), [(3.3, False), (3.5, True), (math.inf, True), (math.nan, True)])
def test_six_standard_deviations_above_the_last_128_are_an_outlier(value: float, outlier: bool) -> None:
    assert filled(Window()).is_outlier(value) is outlier


def test_one_nan_makes_the_rule_skip_until_it_has_left_the_window() -> None:
    """The flaw of the rule as published, kept."""
    window = filled(Window())
    window.is_outlier(math.nan)
    assert [window.is_outlier(3.0) for _ in range(129)] == [True] * 128 + [False]


def test_a_step_is_skipped_for_its_loss_or_its_gradient_norm() -> None:
    rule = SkipStep()
    for number in range(128):
        assert rule(3.0 + 0.1 * (number % 2), 1.0 + 0.1 * (number % 2))
    assert not rule(3.0, 9.0)
    assert not rule(9.0, 1.0)
    assert rule(3.0, 1.0)


def test_the_fixed_rule_goes_back_100_steps_and_skips_200_batches_until_its_budget_is_spent() -> None:
    run = FixedPalm(budget=1)
    for step in range(200):
        run.batch_index = step + 7
        run.log(step, loss=3.0 + 0.1 * (step % 2))
    assert run.take_order() is None
    run.batch_index = 207
    run.log(200, loss=math.nan)
    order = run.take_order()
    assert order is not None
    assert (order.rewind_to, order.skip_from, order.skip_to) == (100, 107, 307)
    run.log(201, loss=math.nan)
    assert run.take_order() is None
