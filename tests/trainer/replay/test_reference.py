"""What is normal before an incident, and what is an anomaly."""

import math

import pytest

from trainer.replay.record import RecordedStep
from trainer.replay.reference import Reference, calibrate, first_divergence, loss_difference


def rows(losses: list[float]) -> list[RecordedStep]:
    return [RecordedStep(batch, loss, 1.0, 6.0) for batch, loss in enumerate(losses)]


def wavering(num: int, level: float = 2.0, slope: float = 0.0) -> list[float]:
    return [level + slope * step + 0.05 * (-1) ** step for step in range(num)]


def calibrated(losses: list[float]) -> Reference:
    return calibrate(dict(enumerate(rows(losses))), first=0, onset=60, signal="loss", repeat_error=0.0)


def test_the_tolerance_is_the_noise_of_the_steps_and_not_their_trend() -> None:
    flat = calibrated(wavering(60))
    falling = calibrate(
        dict(enumerate(rows(wavering(60, 5.0, -0.01)))), first=0, onset=60, signal="loss", repeat_error=0.0
    )
    assert flat.tolerance == pytest.approx(6 * 1.4826 * 0.1 / math.sqrt(2))
    assert falling.tolerance == pytest.approx(flat.tolerance, rel=0.11)
    assert falling.expected(30) == pytest.approx(5.0 - 0.01 * 30, abs=0.06)
    assert falling.expected(500) == falling.expected(49)  # past the onset: the last clean steps


def test_a_loss_is_an_anomaly_above_the_expected_value_and_log_z_on_either_side() -> None:
    record = dict(enumerate(rows(wavering(60))))
    by_loss = calibrate(record, first=0, onset=60, signal="loss", repeat_error=0.0)
    assert by_loss.excess(60, RecordedStep(0, 5.0, 1.0, 6.0)) == pytest.approx(3.0, abs=0.06)
    assert by_loss.excess(60, RecordedStep(0, 0.5, 1.0, 6.0)) < 0
    by_log_z = calibrate(record, first=0, onset=60, signal="log_z", repeat_error=0.0)
    assert by_log_z.excess(60, RecordedStep(0, 2.0, 1.0, 2.0)) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "row",
    [RecordedStep(0, math.nan, 1.0, 6.0), RecordedStep(0, 2.0, math.inf, 6.0), RecordedStep(0, 2.0, 1.0, math.nan)],
)
def test_a_number_that_is_not_finite_is_an_anomaly_whatever_the_signal(row: RecordedStep) -> None:
    losses = wavering(60)
    assert calibrated(losses).worst(60, [rows(losses)[0], row]) == (1, math.inf)


def test_a_replay_diverges_where_it_differs_by_more_than_normal_steps() -> None:
    recorded = rows([2.0, 2.1, 2.2, math.nan])
    assert first_divergence(recorded, recorded, 0.0) is None
    assert first_divergence(recorded, rows([2.0, 2.1 + 1e-9, 2.2, 2.0]), 0.0) == 1
    assert first_divergence(recorded, rows([2.0, 2.1 + 1e-9, 2.2, 2.0]), 1e-8) == 3
    assert loss_difference(recorded[3], RecordedStep(0, 2.0, math.nan, 6.0)) == 0.0
    assert loss_difference(recorded[0], recorded[3]) == math.inf
