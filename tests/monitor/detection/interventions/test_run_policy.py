"""A run's stored rule: its policy, and the detection settings that differ from the defaults."""

from typing import Any

import pytest

from monitor.detection import DetectionSettings, Mode, Policy
from monitor.detection.interventions import run_policy


def test_without_a_rule_the_policy_acts_and_the_detection_has_its_defaults() -> None:
    assert run_policy.policy_of(None) == Policy(mode=Mode.AUTO)
    assert run_policy.settings_of(None) == DetectionSettings()


def test_a_rule_with_the_detection_alone_still_acts() -> None:
    assert run_policy.policy_of({"detection": {"false_alarms_per_10k": 0.3}}).mode is Mode.AUTO


def test_a_change_sets_the_fields_that_it_names_and_keeps_the_rest() -> None:
    first = run_policy.changed(None, {"patience": 8, "detection": {"false_alarms_per_10k": 0.3}})
    second = run_policy.changed(first, {"mode": "approve", "detection": {"calm_rows": 5}})
    assert run_policy.policy_of(second) == Policy(mode=Mode.APPROVE, patience=8)
    assert run_policy.settings_of(second) == DetectionSettings(false_alarms_per_10k=0.3, calm_rows=5)


def test_only_detection_settings_that_differ_from_the_defaults_are_stored() -> None:
    first = run_policy.changed(None, {"detection": {"false_alarms_per_10k": 0.3}})
    assert "detection" not in run_policy.changed(first, {"detection": {"false_alarms_per_10k": 1.0}})


@pytest.mark.parametrize(
    "changes", [{"detection": 3}, {"detection": {"sensitivity": 1}}, {"detection": {"calm_rows": "x"}}, {"depth": 1}]
)
def test_an_invalid_change_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"detection|calm_rows|depth"):
        run_policy.changed(None, changes)


@pytest.mark.parametrize(
    "rule",
    [
        {"mode": "hacked"},
        {"mode": "auto", "patience": "long"},
        {"mode": "auto", "of_a_later_release": 1},
        {"mode": "auto", "detection": [1]},
        {"mode": "auto", "detection": {"nonsense": 1}},
    ],
)
def test_a_stored_rule_that_this_release_cannot_read_acts_on_nothing(rule: Any) -> None:
    assert run_policy.policy_of(rule) == Policy(mode=Mode.OBSERVE)
    assert run_policy.settings_of(rule) == DetectionSettings()
