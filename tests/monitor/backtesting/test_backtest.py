"""Backtests of CSV files: the fixed output, and one sentence for every bad file."""

import json
from pathlib import Path

import numpy as np
import pytest

from monitor.backtesting.backtest import CurveError, backtest_file, backtest_rows
from monitor.detection import Mode, Policy, Rows
from tests.monitor.backtesting.curve_files import spiked, written


def test_the_result_has_the_documented_fields(tmp_path: Path) -> None:
    path = spiked(tmp_path)
    result = json.loads(json.dumps(backtest_file(path)))
    assert (result["file"], result["steps"]) == (str(path), 600)
    (incident,) = result["incidents"]
    names = {"kind", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome", "action"}
    assert names <= set(incident)
    assert set(incident["action"]) == {"kind", "rewind_to", "skip_from", "skip_to"}
    assert (incident["onset_step"], incident["detected_step"]) == (400, 401)
    assert incident["action"] == {"kind": "rollback", "rewind_to": 300, "skip_from": 399, "skip_to": 472}


def test_the_peak_is_the_row_farthest_from_the_band(tmp_path: Path) -> None:
    path = spiked(tmp_path)
    rows = path.read_text().splitlines()
    rows[1 + 405] = "405,4.75"
    (incident,) = backtest_file(written(tmp_path, "\n".join(rows)))["incidents"]
    assert incident["peak_step"] == 405


def test_the_band_that_moves_on_does_not_move_the_peak() -> None:
    """Loss 138.8 at step 702 was called less of a peak than 132.2 at 706, where the level had fallen meanwhile."""
    random = np.random.default_rng(0)
    loss = 25.0 - 0.05 * np.arange(450) + 0.01 * random.standard_normal(450)
    loss[413:415], loss[416:418] = 138.8, 138.7
    (incident,) = backtest_rows(Rows.of(range(450), loss=loss))["incidents"]
    assert incident["peak_step"] == 413


def test_a_spike_that_is_left_alone_says_why(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    loss = 2.0 + 0.02 * random.standard_normal(600)
    loss[400:] += 1.5 * np.exp(-np.arange(200) / 8)
    lines = [f"{step},{value:.5f}" for step, value in enumerate(loss)]
    incident = backtest_file(written(tmp_path, "\n".join(["step,loss", *lines])))["incidents"][0]
    assert incident["action"]["kind"] == "none"
    assert any(words.startswith("Nothing was done: the loss ") for words in incident["reasons"])


def test_proposals_of_a_backtest_never_use_up_the_budget(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    loss = 2.0 + 0.02 * random.standard_normal(2000)
    for at in range(300, 2000, 300):
        loss[at : at + 60] += 0.5 * 3.0 ** (at // 300)  # what smaller ones did says nothing of a spike
    lines = [f"{step},{value:.5f}" for step, value in enumerate(loss)]
    result = backtest_file(written(tmp_path, "\n".join(["step,loss", *lines])), policy=Policy(budget_per_run=2))
    actions = [incident["action"]["kind"] for incident in result["incidents"]]
    assert actions.count("rollback") == 6
    assert "hold" not in actions


def test_a_backtest_that_should_order_is_refused(tmp_path: Path) -> None:
    for mode in (Mode.OBSERVE, Mode.APPROVE):
        assert backtest_file(spiked(tmp_path), policy=Policy(mode=mode))["incidents"][0]["action"]["kind"] == "rollback"
    with pytest.raises(CurveError, match="mode=auto"):
        backtest_file(spiked(tmp_path), policy=Policy(mode=Mode.AUTO))


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


@pytest.mark.parametrize("seed", range(2))
def test_bloom_176b_is_warned_of_one_step_after_the_grad_norm_leaves_its_band_and_left_alone(seed: int) -> None:
    (incident,) = backtest_rows(bloom_176b(seed))["incidents"]
    assert any(reason.startswith("Nothing was done: the loss ") for reason in incident["reasons"])
    assert (incident["onset_step"], incident["detected_step"]) == (31215, 31216)
    assert incident["action"]["kind"] == "none"
    assert incident["outcome"] == "recovered"


@pytest.mark.parametrize("seed", range(2))
def test_bloom_104b_is_rolled_back_deep_by_palms_remedy_and_first_shallow_by_the_default(seed: int) -> None:
    random = np.random.default_rng(seed)
    rise = 6.44 + 0.498 * np.arange(1, 11)
    loss = [*random.normal(6.44, 0.03, 700), *rise, *random.normal(11.42, 0.05, 60)]
    rows = Rows.of(np.arange(6300, 6300 + len(loss)), loss=loss)
    by_default, by_palm = (
        backtest_rows(rows, policy=Policy(name=name))["incidents"][0] for name in ("adaptive", "palm")
    )
    assert 7000 <= by_default["detected_step"] == by_palm["detected_step"] <= 7003
    assert by_default["action"]["kind"] == by_palm["action"]["kind"] == "rollback"
    assert by_palm["action"]["rewind_to"] <= 6000 < by_default["action"]["rewind_to"] <= 6900
