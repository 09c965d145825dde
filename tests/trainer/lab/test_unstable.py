import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from trainer.config import load_recipe
from trainer.lab.unstable import RECIPE, SAFEGUARDS, Safeguard, UnstableRun, plot_unstable, show_unstable, unstable_runs


def _run(seed: int, num_jumps: int) -> UnstableRun:
    calm = [1.0] * 100
    return UnstableRun.of("none", seed, calm + ([3.0] * 10 + calm) * num_jumps)


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


def test_a_run_counts_its_jumps_and_its_final_loss_is_that_of_the_last_quarter() -> None:
    assert len(_run(1, 3).jumps) == 3
    assert UnstableRun.of("none", 1, [4.0] * 75 + [2.0] * 25).final_loss == 2.0


def test_the_table_has_means_and_standard_errors_over_the_seeds() -> None:
    output = io.StringIO()
    show_unstable([_run(1, 1), _run(2, 3)], Console(file=output, width=150))
    (row,) = [line for line in output.getvalue().splitlines() if "none" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:5] == ["none", "1, 3", "2.0 +- 1.0", "3.0 x", "26 +- 13"]


def test_the_plot_shows_the_first_seed_and_keeps_every_peak() -> None:
    runs = [UnstableRun.of("none", 1, [1.0] * 3000 + [9.0] * 5 + [1.0] * 3000), _run(2, 1)]
    (line,) = ET.fromstring(plot_unstable(runs)).findall("{http://www.w3.org/2000/svg}polyline")
    heights = {pair.partition(",")[2] for pair in line.attrib["points"].split()}
    assert len(heights) > 1


@pytest.mark.slow
def test_a_run_of_the_sweep_is_the_run_that_the_recipe_describes(tmp_path: Path) -> None:
    small = ["model.context=8", "model.layers=1", "model.width=8", "data.batch_size=2"]
    chosen = (
        Safeguard("none"),
        Safeguard("skip", skips_outliers=True),
        Safeguard("clip", ("optimizer.clip_norm=1.0",)),
    )
    runs = list(unstable_runs([1, 2], tmp_path, steps=6, overrides=small, safeguards=chosen))
    assert [(run.safeguard, run.seed, len(run.curve)) for run in runs] == [
        (safeguard.name, seed, 6) for seed in (1, 2) for safeguard in chosen
    ]
    assert runs[0].curve == runs[1].curve  # nothing to skip in 6 steps
    assert runs[0].curve != runs[2].curve
    assert runs[0].curve[0] == runs[2].curve[0]
    assert runs[0].jumps == []
