"""The readings of a row, and the rows by which an incident is dated back."""

import numpy as np
import pytest

from monitor.detection.scoring.scored_rows import MAX_RECENT_ROWS, RecentRows, RecentRowsBuffer, SignalReading, describe


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


def reading(value: float, z: float) -> SignalReading:
    return SignalReading(
        value=value,
        z=z,
        evidence=1.234,
        single=1.0,
        drift=0.0,
        expected=2.2,
        scale=0.2,
        low_step=0,
        rise_step=0,
        reference=2.2,
        fall=0.0,
        sure=0.0,
        non_finite=False,
    )


@pytest.mark.parametrize(
    ("value", "z", "text"),
    [
        (3.2, 5.1, "loss is 3.2, expected 2.2 \u00b1 0.2 (5.1 standard deviations, 1.23 times the alarm threshold)"),
        (821.54321, 4096.7, "loss is 822, expected 2.2 \u00b1 0.2 (far outside the band)"),
    ],
)
def test_a_person_reads_three_digits_of_a_reading(value: float, z: float, text: str) -> None:
    assert describe("loss", reading(value, z)) == text
