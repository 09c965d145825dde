import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from trainer.lab.temperature import TEMPERATURES, sampling, sampling_runs, show_sampling


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
    small = ["model.context=8", "model.layers=1", "model.width=8", "data.batch_size=2", "evaluate_windows=4", "steps=2"]
    results = list(sampling_runs([1], tmp_path, overrides=small))
    assert [each.temperature for each in results] == list(TEMPERATURES)
    assert len({each.loss for each in results}) == 1
    output = io.StringIO()
    show_sampling(results, Console(file=output, width=150))
    assert output.getvalue().count(f"{results[0].loss:.4g}") == 3
