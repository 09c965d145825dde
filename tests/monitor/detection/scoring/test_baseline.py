"""A loss when nothing is wrong: near zero, below it, and after an easy stretch of the data."""

from collections.abc import Callable

import numpy as np
import pytest

from monitor.backtesting.backtest import backtest_rows
from monitor.detection import DetectionSettings, Rows
from monitor.detection.rows import Floats
from monitor.detection.scoring.baseline import Baseline, median, robust_std
from monitor.detection.scoring.signals import SIGNALS


def test_the_median_is_that_of_numpy_for_odd_and_even_rows() -> None:
    values = np.random.default_rng(0).standard_normal((5, 12))
    assert np.array_equal(median(values), np.median(values, axis=1))
    assert np.array_equal(median(values[:, :7]), np.median(values[:, :7], axis=1))


def test_the_robust_deviation_of_normal_values_is_theirs_and_one_spike_does_not_move_it() -> None:
    values = np.random.default_rng(0).standard_normal((1, 10_001))
    clean = robust_std(values).item()
    values[0, 0] = 1e9
    assert abs(clean - 1.0) < 0.03
    assert abs(robust_std(values).item() - clean) < 1e-3


Random = np.random.Generator
ROWS = 4000
NEAR_ZERO: dict[str, tuple[Callable[[Random], Floats], float]] = {
    "fine-tuning, thousandths of a nat": (lambda g: 0.004 * np.exp(0.5 * g.standard_normal(ROWS)), 0.002),
    "reinforcement learning, around zero": (lambda g: 0.02 * g.standard_t(5, ROWS), 0.02),
    "negative": (lambda g: 0.05 * g.standard_normal(ROWS) - 3.0, 0.05),
    "crosses zero": (lambda g: 1.0 - np.arange(ROWS) / 2000 + 0.05 * g.standard_normal(ROWS), 0.05),
    "cut off at zero": (lambda g: np.maximum(0.01 * g.standard_normal(ROWS), 0.0), 0.01),
}


@pytest.mark.parametrize("kind", NEAR_ZERO)
def test_a_loss_near_zero_is_judged_by_its_own_noise(kind: str) -> None:
    make, noise = NEAR_ZERO[kind]
    loss = make(np.random.default_rng(3))
    steps = np.arange(ROWS)
    assert len(backtest_rows(Rows.of(steps, loss=loss))["incidents"]) <= 3
    loss[3000:3012] += 12 * noise
    incidents = backtest_rows(Rows.of(steps, loss=loss))["incidents"]
    assert any(3000 <= incident["detected_step"] <= 3006 for incident in incidents)


def test_a_loss_that_is_exactly_zero_in_half_of_the_rows_is_judged_by_the_others() -> None:
    num_incidents = 0
    for seed in range(3):
        random = np.random.default_rng([seed, 99])
        loss = np.where(random.random(10_000) < 0.5, random.exponential(0.01, 10_000), 0.0)
        num_incidents += len(backtest_rows(Rows.of(np.arange(10_000), loss=loss))["incidents"])
    assert num_incidents <= 6


def test_after_an_easy_stretch_a_value_is_judged_by_the_usual_level() -> None:
    baseline = Baseline(SIGNALS["loss"], DetectionSettings())
    loss = 2.0 + 0.02 * np.random.default_rng(0).standard_normal(528)
    loss[512:] -= 0.1
    for value in loss.tolist():
        baseline.add([value])
    assert baseline.level < 1.93
    assert abs(baseline.expected() - 2.0) < 0.02
