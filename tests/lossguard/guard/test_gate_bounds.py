import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.guard.gate_bounds import MIN_VALUES, Bound, GateBounds
from lossguard.vocabulary.metrics import MAX_SKIPPED, SKIP_WINDOW


def _after(num_steps: int, loss: float = 2.0, grad_norm: float = 1.0) -> GateBounds:
    bounds = GateBounds()
    for step in range(num_steps):
        bounds.observe(loss + 0.02 * (step % 3 - 1), grad_norm * (1.0 + 0.1 * (step % 3 - 1)), skipped=False)
    return bounds


def test_before_enough_steps_are_known_only_infinite_values_are_refused() -> None:
    assert _after(MIN_VALUES - 1).limits() == (math.inf, math.inf)
    assert all(map(math.isfinite, _after(MIN_VALUES).limits()))


def test_the_bounds_lie_so_many_robust_deviations_above_the_level() -> None:
    loss, grad_norm = _after(90).limits()
    assert loss == pytest.approx(2.0 + 12 * 1.4826 * 0.02)
    assert 3.0 < grad_norm < 8.0


def test_a_bound_follows_the_run_and_no_skipped_value() -> None:
    bounds = _after(200, loss=2.0)
    for _ in range(MAX_SKIPPED - 1):
        bounds.observe(50.0, math.nan, skipped=True)
    assert bounds.limits() == _after(200, loss=2.0).limits()
    for _ in range(200):
        bounds.observe(1.0, 1.0, skipped=False)
    assert bounds.limits()[0] == pytest.approx(1.12)


@pytest.mark.parametrize(("level", "limit"), [(3.0, 3.36), (-100.0, -88.0)])
def test_a_loss_that_never_changes_has_a_bound_above_its_level(level: float, limit: float) -> None:
    bound = Bound(log=False, min_noise=0.01)
    for _ in range(MIN_VALUES):
        bound.accept(level)
    assert bound.limit(12.0) == pytest.approx(limit)


def test_the_cap_is_reached_by_skips_close_together_and_the_bounds_are_learnt_anew() -> None:
    bounds = _after(100)
    assert [bounds.observe(9.0, 1.0, skipped=True) for _ in range(MAX_SKIPPED)] == [False] * (MAX_SKIPPED - 1) + [True]
    assert bounds.limits() == (math.inf, math.inf)
    assert bounds.num_skipped == MAX_SKIPPED


def test_rare_skips_never_reach_the_cap() -> None:
    bounds = _after(100)
    every = SKIP_WINDOW // (MAX_SKIPPED - 1) + 1
    assert not any(bounds.observe(2.0, 1.0, skipped=step % every == 0) for step in range(20 * every))


def test_the_deviations_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="deviations=0"):
        GateBounds(0)


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e6), st.booleans()), max_size=150), st.integers(0, 150))
def test_a_restored_state_goes_on_exactly(steps: list[tuple[float, float, bool]], cut: int) -> None:
    whole, first, second = GateBounds(), GateBounds(), GateBounds()
    for loss, grad_norm, skipped in steps:
        whole.observe(loss, grad_norm, skipped=skipped)
    for loss, grad_norm, skipped in steps[:cut]:
        first.observe(loss, grad_norm, skipped=skipped)
    second.load_state_dict(first.state_dict())
    for loss, grad_norm, skipped in steps[cut:]:
        second.observe(loss, grad_norm, skipped=skipped)
    assert second.state_dict() == whole.state_dict()
    assert second.limits() == whole.limits()
