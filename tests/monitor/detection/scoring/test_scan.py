import numpy as np

from monitor.detection.scoring.scan import LEAD, SPANS, last_statistics, rolling_mean, scan_statistics


def test_the_statistics_are_those_of_a_plain_loop() -> None:
    z, plain = np.random.default_rng(0).standard_normal((2, LEAD + 40))
    out = np.empty((len(SPANS), 40))
    scan_statistics(z, plain, out)
    for row, span in enumerate(SPANS):
        for k in range(40):
            last = (z if span <= 3 else plain)[LEAD + k - span + 1 : LEAD + k + 1]
            expected = last[0] if span == 1 else (last.sum() - last.max()) / np.sqrt(span - 1)
            assert abs(out[row, k] - expected) < 1e-12


def test_the_rolling_mean_is_that_of_twelve_values() -> None:
    values = np.random.default_rng(0).standard_normal(30)
    np.testing.assert_allclose(rolling_mean(values), np.convolve(values, np.ones(12) / 12, "valid"), atol=1e-12)


def test_the_statistics_of_the_last_value_alone_are_the_same_to_the_last_bit() -> None:
    z, plain = np.random.default_rng(0).standard_normal((2, 400))
    statistics = np.empty((len(SPANS), len(z) - LEAD))
    scan_statistics(z, plain, statistics)
    past = [(z[k - 3 : k].tolist(), plain[k - LEAD - 1 : k].tolist()) for k in range(LEAD + 1, len(z) + 1)]
    alone = [last_statistics(*each) for each in past]
    assert [list(each) for each in alone] == statistics.T.tolist()
