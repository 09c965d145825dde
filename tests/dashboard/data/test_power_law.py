"""The law through losses at several amounts of compute."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.data.lab_results import ScalingRun
from dashboard.data.power_law import fit, sizes


def run(width: int, loss: float, *, seed: int = 1, parameters: int | None = None, tokens: int = 1000) -> ScalingRun:
    size = parameters if parameters is not None else 100 * width**2
    return ScalingRun(width=width, seed=seed, parameters=size, tokens=tokens, held_out_loss=loss)


def on_law(width: int, *, factor: float = 1.0, seed: int = 1) -> ScalingRun:
    return run(width, factor * 40.0 * (6.0 * 100 * width**2 * 1000) ** -0.1, seed=seed)


def test_losses_on_a_power_law_give_that_law_and_predict_the_largest_size() -> None:
    by_size = sizes([on_law(width, seed=seed) for seed in (1, 2) for width in (4, 1, 2, 8)])
    assert [size.width for size in by_size] == [1, 2, 4, 8]
    fitted = fit(by_size)
    assert fitted is not None
    assert [fitted.law.coefficient, fitted.law.exponent] == pytest.approx([40.0, 0.1])
    assert fitted.law_of_smaller(by_size[-1].flops) == pytest.approx(by_size[-1].loss.mean)
    assert fitted.exponent.standard_error == pytest.approx(0.0, abs=1e-9)


def test_the_exponent_is_averaged_over_the_seeds_that_all_sizes_have() -> None:
    runs = [on_law(width, factor=seed, seed=seed) for seed in (1, 2) for width in (1, 2, 4)]
    fitted = fit(sizes([*runs, run(4, 9.9, seed=3)]))
    assert fitted is not None
    assert fitted.exponent.mean == pytest.approx(0.1)


@pytest.mark.parametrize("losses", [[3.0, 2.0], [3.0, math.nan, 2.0], [3.0, 0.0, 2.0], [3.0, math.inf, 2.0]])
def test_there_is_no_law_through_two_sizes_or_losses_without_a_logarithm(losses: list[float]) -> None:
    assert fit(sizes([run(width, loss) for width, loss in enumerate(losses, 1)])) is None


def test_runs_of_one_width_with_other_tokens_are_another_size() -> None:
    assert len(sizes([run(2, 3.0), run(2, 2.9, tokens=2000), run(2, 3.1, seed=2)])) == 2


@given(st.lists(st.tuples(st.integers(1, 2**52), st.integers(1, 2**52), st.floats()), min_size=3, max_size=6))
def test_no_sizes_and_losses_make_the_fit_fail(values: list[tuple[int, int, float]]) -> None:
    by_size = sizes([run(w, loss, parameters=n, tokens=d) for w, (n, d, loss) in enumerate(values, 1)])
    fitted = fit(by_size)
    assert fitted is None or isinstance(fitted.law(by_size[0].flops), float)
