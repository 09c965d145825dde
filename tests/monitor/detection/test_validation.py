from typing import Any

import pytest

from monitor.detection import DetectionSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("false_alarms_per_10k", float("nan")), ("false_alarms_per_10k", True), ("false_alarms_per_10k", "1")],
        *[("warmup_rows", 24.5), ("adopt_rows", float("inf")), ("calm_rows", None), ("plateau_steps", False)],
    ],
)
def test_a_setting_of_the_wrong_type_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .*, not {value!r}$"):
        DetectionSettings(**{field: value})
