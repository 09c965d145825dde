"""The figure of the detector lab."""

import numpy as np

from dashboard.views.lab.figure import bucket_ranges
from monitor.detection import Rows


def test_bucket_ranges_keep_a_spike_of_one_step_and_leave_a_gap_for_non_finite_values() -> None:
    loss = np.full(1000, 2.0)
    loss[503] = 9.0
    loss[100:120] = np.nan
    steps, low, high = bucket_ranges(Rows.of(range(1000), loss=loss), 100)
    assert np.nanmax(high) == 9.0
    assert np.flatnonzero(np.isnan(low)).tolist() == [10, 11]
    assert len(steps) == 100
