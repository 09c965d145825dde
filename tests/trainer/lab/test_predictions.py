import math
from pathlib import Path

import pytest
import torch

from tests.trainer.lab.small import shown, small_lab
from trainer.lab.predictions import (
    TEMPERATURES,
    Calibration,
    calibration,
    calibrations,
    sampling,
    samplings,
    show_calibrations,
    show_samplings,
)


def test_a_model_that_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    p = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log().expand(4, 2)
    result = calibration(p, torch.tensor([0, 0, 0, 1]), smoothing=0.0, seed=0)
    ((count, sure, right),) = result.bins
    assert (count, right) == (4, 0.75)
    assert sure == pytest.approx(0.75)
    assert result.error == pytest.approx(0.0)
    assert result.loss == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)


def test_the_error_is_the_distance_of_probability_and_frequency_over_all_tokens() -> None:
    result = Calibration(0.0, 1, 2.0, 2.0, 0.0, bins=[(3, 0.9, 0.6), (1, 0.5, 0.9)])
    assert result.error == pytest.approx((3 * 0.3 + 0.4) / 4)


def test_a_model_that_predicts_smoothed_targets_has_the_loss_floor() -> None:
    p = torch.full((1, 256), 0.1 / 256, dtype=torch.float64)
    p[0, 7] += 0.9
    result = calibration(p.log(), torch.tensor([7]), smoothing=0.1, seed=0)
    assert result.loss == pytest.approx(result.loss_floor)


@pytest.mark.slow
def test_each_smoothing_is_measured(tmp_path: Path) -> None:
    results = list(calibrations(small_lab(tmp_path)))
    assert [each.smoothing for each in results] == [0.0, 0.1, 0.3]
    assert f"{results[2].loss_floor:.3f}" in shown(show_calibrations, results)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_numbers_are_those_of_the_definitions(temperature: float) -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    result = sampling(p.log().unsqueeze(0), torch.tensor([1]), seed=0, temperature=temperature)
    weights = [share ** (1 / temperature) for share in (0.7, 0.2, 0.1)]
    q = [weight / sum(weights) for weight in weights]
    assert result.loss == pytest.approx(-math.log(0.2))
    assert result.entropy == pytest.approx(-sum(share * math.log(share) for share in q))
    assert result.hits == pytest.approx(q[1])


@pytest.mark.slow
def test_a_trained_model_is_sampled_at_every_temperature(tmp_path: Path) -> None:
    results = list(samplings(small_lab(tmp_path)))
    assert [each.temperature for each in results] == list(TEMPERATURES)
    assert len({each.loss for each in results}) == 1
    assert shown(show_samplings, results).count(f"{results[0].loss:.4g}") == 3
