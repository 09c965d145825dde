import pytest

from monitor.detection import DetectionSettings


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="false_alarms_per_10k must be above 0"):
        DetectionSettings(false_alarms_per_10k=0)
    with pytest.raises(ValueError, match="unknown detection settings: speed"):
        DetectionSettings.from_dict({"speed": 1})
