import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.lab.small import small_lab
from trainer.lab import scaling
from trainer.lab.scaling import Scaling, ScalingRun, fit_power_law, scaling_runs

COMPUTE = [1e9, 1e10, 4e10, 3e11, 1e12]


@given(st.floats(0.5, 500), st.floats(0.01, 0.5))
def test_a_power_law_is_recovered_from_its_points(coefficient: float, exponent: float) -> None:
    law = fit_power_law(COMPUTE, [coefficient * compute**-exponent for compute in COMPUTE])
    assert law.coefficient == pytest.approx(coefficient, rel=1e-6)
    assert law.exponent == pytest.approx(exponent, abs=1e-9)


def _runs() -> list[ScalingRun]:
    sizes = [(16, 10_000), (24, 20_000), (32, 40_000)]
    return [
        ScalingRun(width, seed, n, 20 * n, 1e9, (20.0 + seed / 10) * (120.0 * n * n) ** -0.1)
        for seed in (1, 2, 3)
        for width, n in sizes
    ]


def test_the_exponent_has_a_standard_error_over_the_seeds_and_the_largest_size_is_predicted_by_the_others() -> None:
    found = Scaling(_runs())
    assert found.compute == pytest.approx((1.2e10, 4.8e10, 1.92e11))
    assert found.exponent.mean == pytest.approx(0.1)
    assert found.exponent.standard_error == pytest.approx(0.0, abs=1e-9)
    assert found.predicted == pytest.approx(found.losses[-1].mean)


@pytest.mark.slow
def test_every_size_is_trained_on_its_tokens_per_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "WIDTHS", (8,))
    monkeypatch.setattr(scaling, "CHINCHILLA_RATIO", 0.01)
    (run,) = scaling_runs(small_lab(tmp_path, seed=5, steps=None))
    assert run.parameters == 256 * 8 + 12 * 8 * 8 + 3 * 8
    assert run.tokens == 16 * math.ceil(0.01 * run.parameters / 16)
    assert run.flops_6nd == 6 * run.parameters * run.tokens
    assert 4.0 < run.held_out_loss < 7.0
