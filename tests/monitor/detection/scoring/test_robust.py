import numpy as np

from monitor.detection.scoring.robust import median, robust_std


def test_the_median_is_that_of_numpy_for_odd_and_even_rows() -> None:
    values = np.random.default_rng(0).standard_normal((5, 12))
    assert np.array_equal(median(values), np.median(values, axis=1))
    assert np.array_equal(median(values[:, :7]), np.median(values[:, :7], axis=1))


def test_the_robust_deviation_of_normal_values_is_theirs_and_one_spike_does_not_move_it() -> None:
    values = np.random.default_rng(0).standard_normal((1, 10_001))
    clean = robust_std(values).item()
    values[0, 0] = 1e9
    assert abs(clean - 1.0) < 0.03
    assert abs(robust_std(values).item() - clean) < 1e-3
