import pytest

from monitor.detection.interventions import preflight_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.001, "under 0.01 s"),
        (0.42, "0.4 s"),
        (8.4, "8.4 s"),
        (61.4, "61 s"),
        (300, "5 min"),
        (9000, "2.5 h"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert preflight_text.duration(seconds) == text


def test_hours_are_never_rounded_to_nothing() -> None:
    assert preflight_text.hours(0.001, "GPU-hours") == "under 0.01 GPU-hours"
    assert preflight_text.hours(0.417, "GPU-hours") == "0.42 GPU-hours"
    assert preflight_text.hours(1.0, "GPU-hours") == "1 GPU-hour"
    assert preflight_text.hours(1234.5, "GPU-hours") == "1,234 GPU-hours"
