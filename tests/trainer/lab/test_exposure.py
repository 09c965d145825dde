import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lossguard.vocabulary.wording import Estimate
from trainer.cli import app
from trainer.config import Recipe
from trainer.data.markov import MarkovChain
from trainer.lab import exposure
from trainer.lab.exposure import WAYS, TrainedModel, compare_ways
from trainer.lab.training import Lab
from trainer.measurement.exposure import ExposureBias

SMALL = ["model.layers=1", "model.heads=2", "model.width=16", "model.context=8", "data.batch_size=4", "device=cpu"]


EXPOSURE = ExposureBias(
    true_prefixes=Estimate(0.5, 9.0),
    own_prefixes=Estimate(0.7, 9.0),
    bias=Estimate(0.2, 9.0),
    true_prefixes_T=[],
    own_prefixes_T=[],
)


@pytest.mark.slow
def test_every_way_of_training_is_measured() -> None:
    overrides = [word for override in (*SMALL, "data.path=markov:1,16") for word in ("--set", override)]
    words = ["lab", "--exposure", "--seeds", "1", "--steps", "50", "--quick", "--json", *overrides]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["trained_with"] for each in results] == list(WAYS)
    assert [[model["seed"] for model in each["models"]] for each in results] == [[1]] * len(WAYS)
    assert results[0]["true_inputs"] == {"mean": 1.0, "standard_error": "NaN"}
    assert results[-1]["true_inputs"]["mean"] < 0.3
    for each in results:  # two ways to the distance from the truth: on the held-out data, and on generated sequences
        excess = each["held_out_loss"]["mean"] - each["loss_floor"]
        assert excess == pytest.approx(each["true_prefixes"]["mean"], abs=0.15)


def test_every_way_of_training_is_what_its_name_says_whatever_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[float, float]] = []

    def note(lab: Lab, name: str, recipe: Recipe, chain: MarkovChain) -> TrainedModel:
        trained.append((recipe.objective.scheduled_sampling, recipe.objective.parallel_scheduled_sampling))
        return TrainedModel(seed=1, held_out_loss=2.0, exposure=EXPOSURE, true_inputs=1.0)

    monkeypatch.setattr(exposure, "train_one", note)
    lab = Lab(folder=tmp_path, num_seeds=1, overrides=["objective.scheduled_sampling=0.5"])
    assert len(list(compare_ways(lab))) == len(WAYS)
    assert trained == [(0.0, 0.0), (0.0, 0.25), (0.0, 1.0), (0.25, 0.0), (1.0, 0.0)]
