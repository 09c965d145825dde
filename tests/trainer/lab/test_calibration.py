import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from trainer.lab.calibration import (
    RECIPES,
    Calibration,
    calibration,
    calibration_runs,
    expected_calibration_error,
    loss_floor,
    show_calibration,
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
    assert expected_calibration_error([(3, 0.9, 0.6), (1, 0.5, 0.9)]) == pytest.approx((3 * 0.3 + 0.4) / 4)


def test_a_model_that_predicts_smoothed_targets_has_the_loss_floor() -> None:
    p = torch.full((1, 256), 0.1 / 256, dtype=torch.float64)
    p[0, 7] += 0.9
    result = calibration(p.log(), torch.tensor([7]), smoothing=0.1, seed=0)
    assert result.loss == pytest.approx(result.loss_floor) == pytest.approx(loss_floor(0.1, 256))


@pytest.mark.slow
def test_each_smoothing_is_measured(tmp_path: Path) -> None:
    small = ["model.context=8", "model.layers=1", "model.width=8", "data.batch_size=2", "evaluate_windows=4", "steps=2"]
    results: list[Calibration] = list(calibration_runs([1], tmp_path, overrides=small))
    assert [each.smoothing for each in results] == [0.0, 0.1, 0.3]
    assert len(results) == len(RECIPES)
    output = io.StringIO()
    show_calibration(results, Console(file=output, width=150))
    assert f"{results[2].loss_floor:.3f}" in output.getvalue()
