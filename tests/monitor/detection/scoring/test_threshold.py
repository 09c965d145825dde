"""Alarm thresholds: a run with hard batches is judged by how hard they are."""

import numpy as np
import pytest

from monitor.backtesting.backtest import backtest_rows
from monitor.detection import Rows
from monitor.detection.rows import Floats
from monitor.detection.scoring.threshold import (
    LEAD,
    MIN_THRESHOLDS,
    NUM_BINS,
    PRIOR_THRESHOLDS,
    SPANS,
    SURE,
    TailThresholds,
    last_statistics,
    scan_statistics,
)


def test_the_statistics_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    z, plain = random.standard_normal((2, LEAD + 40))
    short, long = random.uniform(0.0, 0.9, (2, 40))
    out = np.empty((len(SPANS), 40))
    scan_statistics(z, plain, short, long, out)
    for row, span in enumerate(SPANS):
        for k in range(40):
            last = (z if span <= 3 else plain)[LEAD + k - span + 1 : LEAD + k + 1]
            predicted = plain[LEAD + k - span] * ((short if span <= 3 else long)[k] ** np.arange(1, span + 1)).sum()
            expected = last[0] if span == 1 else (last.sum() - last.max() - predicted) / np.sqrt(span - 1)
            assert abs(out[row, k] - expected) < 1e-12


def test_the_statistics_of_the_last_value_alone_are_the_same_to_the_last_bit() -> None:
    z, plain = np.random.default_rng(0).standard_normal((2, 400))
    statistics = np.empty((len(SPANS), len(z) - LEAD))
    past = [(z[k - 3 : k].tolist(), plain[k - LEAD - 1 : k].tolist()) for k in range(LEAD + 1, len(z) + 1)]
    for short, long in ((0.0, 0.0), (0.4, 0.4), (0.0, 0.8)):
        scan_statistics(z, plain, np.full(len(past), short), np.full(len(past), long), statistics)
        alone = [last_statistics(*each, short, long) for each in past]
        assert [list(each) for each in alone] == statistics.T.tolist()


def fitted(z: Floats, probability: float = 1e-4) -> TailThresholds:
    """The thresholds after the residuals z."""
    thresholds, statistics = TailThresholds(), np.empty((len(SPANS), len(z) - LEAD))
    scan_statistics(z, z, np.zeros(1), np.zeros(1), statistics)
    thresholds.add(statistics, np.ones(statistics.shape, dtype=bool))
    thresholds.fit(probability)
    return thresholds


def skewed(seed: int, rows: int = 20_000) -> Floats:
    """A falling loss whose noise is log-normal: one batch in fifty is five noises above the level."""
    noise = np.exp(0.7 * np.random.default_rng(seed).standard_normal(rows))
    return 2.5 + np.exp(-np.arange(rows) / 3000) + 0.02 * noise


def test_skewed_noise_opens_few_incidents_and_is_never_acted_on() -> None:
    runs = [backtest_rows(Rows.of(np.arange(20_000), loss=skewed(seed)))["incidents"] for seed in range(3)]
    assert sum(map(len, runs)) <= 6  # one in 10,000 rows
    assert {incident["action"]["kind"] for incidents in runs for incident in incidents} <= {"none"}


def test_a_spike_in_skewed_noise_is_found_within_two_rows() -> None:
    loss = skewed(0, 4000)
    loss[3000:3012] += 0.4
    incidents = backtest_rows(Rows.of(np.arange(4000), loss=loss))["incidents"]
    assert incidents[-1]["onset_step"] == 3000
    assert incidents[-1]["detected_step"] <= 3002


def test_normal_noise_needs_no_more_than_the_least_thresholds() -> None:
    thresholds = fitted(np.random.default_rng(0).standard_normal(5000))
    assert thresholds.values.tolist() == MIN_THRESHOLDS.tolist()
    assert thresholds.sure.tolist() == (SURE * MIN_THRESHOLDS).tolist()


def test_a_young_tail_needs_more() -> None:
    thresholds = fitted(np.random.default_rng(0).standard_normal(150))
    assert thresholds.values.tolist() == (SURE * MIN_THRESHOLDS).tolist()
    assert (thresholds.sure[1:] > 2.3 * SURE * MIN_THRESHOLDS[1:]).all()


@pytest.mark.parametrize("seed", range(3))
def test_an_action_needs_more_than_an_incident(seed: int) -> None:
    thresholds = fitted(np.random.default_rng(seed).standard_t(3, 5000))
    assert (thresholds.sure >= SURE * thresholds.values).all()


def test_two_hard_batches_in_a_row_are_expected_as_often_as_hard_batches_square() -> None:
    random = np.random.default_rng(0)
    z = np.where(random.random(5000) < 0.01, random.uniform(5, 20, 5000), random.standard_normal(5000))
    z[np.flatnonzero((z > 4)[1:] & (z > 4)[:-1])] = 0.0  # no two of them have met so far
    assert fitted(z).sure[1] / SURE >= np.quantile(z, 1 - np.sqrt(1e-4 * 0.05) * 1.2)


def test_spikes_do_not_make_the_next_spike_normal() -> None:
    loss = 2.5 + 0.02 * np.random.default_rng(1).standard_normal(8000)
    starts = range(300, 7900, 700)
    for start in starts:
        loss[start : start + 3] += 0.02 * np.array([10.0, 7.0, 7.0])
    incidents = backtest_rows(Rows.of(np.arange(8000), loss=loss))["incidents"]
    assert [incident["onset_step"] for incident in incidents] == list(starts)


def test_a_rarer_alarm_needs_more() -> None:
    z = np.exp(0.7 * np.random.default_rng(0).standard_normal(5000)) / 0.5 - 2.0
    thresholds = [fitted(z, probability).values for probability in (1e-3, 1e-4, 1e-5)]
    assert (np.diff(thresholds, axis=0)[:, 1:3] > 0).all()


def test_a_tail_of_a_few_values_is_not_trusted() -> None:
    assert fitted(np.zeros(LEAD + 63)).values.tolist() == PRIOR_THRESHOLDS[0].tolist()


def test_saved_and_loaded_thresholds_are_the_same() -> None:
    thresholds = TailThresholds()
    thresholds.add(np.random.default_rng(0).exponential(2.0, (len(SPANS), 640)), np.ones((len(SPANS), 640), dtype=bool))
    thresholds.fit(1e-4)
    again = TailThresholds()
    again.load_state_dict(thresholds.state_dict())
    assert again.histograms.shape == (len(SPANS), NUM_BINS)
    assert (again.histograms == thresholds.histograms).all()
    assert (again.values == thresholds.values).all()
