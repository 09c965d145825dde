import numpy as np

from monitor.detection.scoring.scan import LEAD, SPANS, last_statistics, scan_statistics


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
