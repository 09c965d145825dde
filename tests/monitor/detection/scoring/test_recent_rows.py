"""The last rows, which come in columns or one by one."""

import numpy as np

from monitor.detection.scoring.recent_rows import MAX_RECENT_ROWS, RecentRows, RecentRowsBuffer


def test_rows_that_came_one_by_one_are_the_last_ones_in_their_order() -> None:
    buffer = RecentRowsBuffer(RecentRows.none(["loss", "log_z"]))
    assert buffer.last_step is None
    for step in range(75):
        buffer.add(step, {"loss": 0.1 * step}, {"loss": float(step), "lr": 1.0})
    assert buffer.last_step == 74
    rows = buffer.rows
    assert rows.steps.tolist() == list(range(75 - MAX_RECENT_ROWS, 75))
    assert rows.values["loss"].tolist() == rows.steps.tolist()
    assert rows.z["loss"].tolist() == [0.1 * step for step in rows.steps.tolist()]
    assert list(rows.values) == ["loss", "log_z"]
    assert np.isnan(rows.values["log_z"]).all()
    assert not rows.z["log_z"].any()


def test_rows_that_are_set_replace_those_that_wait() -> None:
    buffer = RecentRowsBuffer(RecentRows.none(["loss"]))
    buffer.add(1, {"loss": 1.0}, {"loss": 2.0})
    buffer.rows = RecentRows(np.array([5]), {"loss": np.zeros(1)}, {"loss": np.ones(1)})
    buffer.add(6, {}, {})
    assert buffer.rows.steps.tolist() == [5, 6]
