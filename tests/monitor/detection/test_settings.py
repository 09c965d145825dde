import json
from pathlib import Path
from typing import Any

import pytest

from monitor.detection import DetectionSettings, Policy
from monitor.detection.interventions import run_policy


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="false_alarms_per_10k must be above 0"):
        DetectionSettings(false_alarms_per_10k=0)
    with pytest.raises(ValueError, match="unknown detection settings: speed"):
        DetectionSettings.from_dict({"speed": 1})


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("min_depth", 0), ("skip_max", 100), ("mode", "bold"), ("mode", 3), ("mode", []), ("lr_scale", 0.0)],
        *[("budget_per_run", -1), ("restart_steps", -1), ("patience", 0)],
        *[("skip_min", 200.5), ("patience", True), ("patience", "9"), ("patience", None), ("skip_max", float("inf"))],
        *[("min_depth", float("nan")), ("lr_scale", float("nan")), ("lr_scale", False), ("lr_scale", "0.5")],
        *[("allow_lr_scale", "no"), ("allow_lr_scale", 1), ("skip_max", 10**400)],
        *[("name", 3), ("batch_cost", 0), ("max_attempts", 0), ("max_skip", 0)],
        *[("when_structural", "stop"), ("when_structural", True), ("when_structural", [])],
    ],
)
def test_an_invalid_value_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}") as raised:
        Policy(**{field: value})
    assert str(value) in str(raised.value) or field == "skip_max"


def test_a_policy_survives_its_dictionary_and_refuses_unknown_names() -> None:
    policy = Policy(mode="auto", patience=5)  # type: ignore[arg-type]
    assert Policy.from_dict(policy.to_dict()) == policy
    assert json.loads(json.dumps(policy.to_dict()))["when_structural"] == "hold"
    with pytest.raises(ValueError, match="unknown policy settings: speed"):
        Policy.from_dict({"speed": 1})


def test_the_page_of_settings_has_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/settings.md").read_text(encoding="utf-8")
    defaults = run_policy.policy_of(None).to_dict()
    missing = [
        name
        for name, value in defaults.items()
        if f"| `{name}` | `{value if isinstance(value, str) else json.dumps(value)}` |" not in page
    ]
    assert missing == []


def test_a_policy_at_the_pace_of_the_rows_waits_for_some_of_them() -> None:
    policy = Policy()
    assert policy.paced(1) is policy
    paced = policy.paced(50)
    assert (paced.patience, paced.verify_steps, paced.min_depth) == (200, 200, policy.min_depth)
    assert policy.paced(2).verify_steps == policy.verify_steps
