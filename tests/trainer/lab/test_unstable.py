import json
from pathlib import Path

import pytest

from tests.trainer.lab.small import small_lab
from trainer.config import load_recipe
from trainer.conversion import encoded
from trainer.lab import unstable
from trainer.lab.unstable import RECIPE, SAFEGUARDS, Safeguard, unstable_runs


def test_every_safeguard_changes_one_setting_of_the_unstable_recipe() -> None:
    plain = load_recipe(RECIPE).to_dict()
    for safeguard in SAFEGUARDS[1:]:
        changed = load_recipe(RECIPE, safeguard.overrides).to_dict()
        fields = [
            name
            for section in ("model", "optimizer", "data")
            for name in plain[section]
            if plain[section][name] != changed[section][name]
        ]
        assert len(fields) + safeguard.skips_outliers == 1, safeguard.name


@pytest.mark.slow
def test_a_run_of_the_sweep_is_the_run_that_the_recipe_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (
        Safeguard("none"),
        Safeguard("skip", skips_outliers=True),
        Safeguard("clip", ("optimizer.clip_norm=1.0",)),
    )
    monkeypatch.setattr(unstable, "SAFEGUARDS", chosen)
    runs = list(unstable_runs(small_lab(tmp_path, num_seeds=2, steps=6)))
    assert [(run.safeguard, run.seed, len(run.curve)) for run in runs] == [
        (safeguard.name, seed, 6) for seed in (1, 2) for safeguard in chosen
    ]
    assert runs[0].curve == runs[1].curve  # nothing to skip in 6 steps
    assert runs[0].curve != runs[2].curve
    assert runs[0].curve[0] == runs[2].curve[0]
    assert runs[0].jumps == []
    assert json.loads(json.dumps(encoded(runs[0]), allow_nan=False))["curve"] == runs[0].curve
