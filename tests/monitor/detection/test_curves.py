"""Golden traces of public runs. The labelled curves lie outside the project; without them one test is left out."""

from pathlib import Path

import numpy as np
import pytest

from monitor.backtesting.backtest import backtest_rows
from monitor.backtesting.labelled_curves import our_alarms, read_folder, total
from monitor.detection import Rows

CURVES = Path(__file__).resolve().parents[4] / "shared" / "curves"

BLOOM_LOSS = [2.199, 2.220, 2.595, 2.242, 2.345, 5.098, 3.492, 3.213, 2.805]
BLOOM_GRAD = [0.242, 0.947, 2.39, 15.9, 145.0, 960.0, 353.0, 379.0, 650.0]


def bloom_176b(seed: int) -> Rows:
    """The chronicle's iterations 31214-31222 between a clean history and the recovery to 2.216 by 31250."""
    random = np.random.default_rng(seed)
    before, after = 400, 60
    back = 2.216 + 0.589 * np.exp(-np.arange(1, 28 + after) / 8)
    loss = [*random.normal(2.21, 0.02, before), *BLOOM_LOSS, *(back + random.normal(0, 0.02, len(back)))]
    calm = np.exp(random.normal(np.log(0.24), 0.1, before))
    grad = [*calm, *BLOOM_GRAD, *(0.24 + 300 * np.exp(-np.arange(1, 28 + after) / 3.0))]
    return Rows.of(np.arange(31214 - before, 31214 - before + len(loss)), loss=loss, grad_norm=grad)


@pytest.mark.parametrize("seed", range(5))
def test_bloom_176b_is_warned_of_one_step_after_the_grad_norm_leaves_its_band_and_left_alone(seed: int) -> None:
    (incident,) = backtest_rows(bloom_176b(seed))["incidents"]
    assert any(reason.startswith("Nothing was done: the loss ") for reason in incident["reasons"])
    assert (incident["onset_step"], incident["detected_step"]) == (31215, 31216)
    assert incident["action"]["kind"] == "none"
    assert incident["outcome"] == "recovered"


@pytest.mark.parametrize("seed", range(5))
def test_bloom_104b_is_rolled_back_deep(seed: int) -> None:
    random = np.random.default_rng(seed)
    rise = 6.44 + 0.498 * np.arange(1, 11)
    loss = [*random.normal(6.44, 0.03, 700), *rise, *random.normal(11.42, 0.05, 60)]
    incident = backtest_rows(Rows.of(np.arange(6300, 6300 + len(loss)), loss=loss))["incidents"][0]
    assert 7000 <= incident["detected_step"] <= 7003
    assert incident["action"]["kind"] == "rollback"
    assert incident["action"]["rewind_to"] <= 6000


@pytest.mark.skipif(not (CURVES / "labels.json").exists(), reason="the labelled curves are not there")
def test_labelled_curves_recall_85_percent_at_one_false_alarm_in_10000_rows() -> None:
    curves = read_folder(CURVES)
    for which in ("detected_step", "onset_step"):
        score = total(curves, lambda curve, which=which: our_alarms(curve, which=which))  # type: ignore[misc]
        assert score.recall >= 0.85
        assert score.rate <= 1.0
