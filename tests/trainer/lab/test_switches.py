import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.lab.small import shown
from tests.trainer.small import TEXT, small_recipe
from trainer.cli import app
from trainer.config import load_recipe
from trainer.lab.switches import SWITCHES, show_switches, try_switch
from trainer.lab.training import Lab

SMALL = ["model.layers=1", "model.heads=2", "model.width=16", "model.context=16", "data.batch_size=4"]


def test_every_switch_is_a_recipe_that_changes_one_thing_of_the_first() -> None:
    first = load_recipe(SWITCHES[0]).to_dict()
    for name in SWITCHES[1:]:
        recipe = load_recipe(name).to_dict()
        assert recipe.pop("name") == name
        changed = [section for section in recipe if recipe[section] != first[section]]
        assert len(changed) == 1
        (section,) = changed
        assert len([field for field in recipe[section] if recipe[section][field] != first[section][field]]) == 1


@pytest.mark.slow
def test_a_switch_is_described_by_losses_and_costs(tmp_path: Path) -> None:
    result = try_switch(Lab(folder=tmp_path), small_recipe(tmp_path, steps=30))
    assert result.perplexity == pytest.approx(math.exp(result.held_out_loss))
    assert 0 < result.held_out_loss_se < 1
    assert result.bits_per_token == pytest.approx(result.held_out_loss / math.log(2))
    assert result.tokens_per_parameter * result.flops_6nd == pytest.approx(6 * (30 * 64) ** 2)
    assert math.isfinite(result.own_continuations.excess.mean)
    text = shown(show_switches, [result])
    assert "small" in text
    assert "tokens per parameter (Chinchilla: about 20)" in text


@pytest.mark.parametrize("every", [0, 2, 50])
def test_the_held_out_loss_is_of_the_last_step_however_often_the_recipe_measures_it(tmp_path: Path, every: int) -> None:
    recipe = small_recipe(tmp_path, steps=3, evaluate_every=every)
    assert math.isfinite(try_switch(Lab(folder=tmp_path), recipe).held_out_loss)


@pytest.mark.slow
def test_the_lab_prints_one_json_object_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    overrides = [word for override in SMALL for word in ("--set", override)]
    words = ["lab", "drill", "squared_error", "no_causal_mask", "--steps", "30", "--data", str(tmp_path / "text.txt")]
    done = CliRunner().invoke(app, [*words, "--json", *overrides])
    assert done.exit_code == 0, done.output
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["recipe"] for each in results] == ["drill", "squared_error", "no_causal_mask"]
