import pytest

from monitor.detection.scoring.readings import SignalReading, describe


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
