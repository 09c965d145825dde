"""A run's stored rule: its policy, and the detection settings that differ from the defaults."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.states import Layer
from monitor.detection import DetectionSettings, Mode, Policy
from monitor.detection.interventions import run_policy


def test_without_a_rule_the_policy_acts_and_the_detection_has_its_defaults() -> None:
    assert run_policy.policy_of(None) == Policy(mode=Mode.AUTO)
    assert run_policy.settings_of(None) == DetectionSettings()


def test_a_rule_with_the_detection_alone_still_acts() -> None:
    assert run_policy.policy_of({"detection": {"false_alarms_per_10k": 0.3}}).mode is Mode.AUTO


def test_a_rule_keeps_the_detection_settings_that_differ_from_their_defaults() -> None:
    policy, settings = Policy(mode=Mode.APPROVE, patience=8), DetectionSettings(calm_rows=5)
    rule = run_policy.to_rule(policy, settings)
    assert rule["detection"] == {"calm_rows": 5}
    assert run_policy.read(rule) == (policy, settings)
    assert "detection" not in run_policy.to_rule(policy, DetectionSettings())


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
    with pytest.raises((TypeError, ValueError), match=r"mode|patience|of_a_later_release|detection"):
        run_policy.read(rule)
    assert run_policy.policy_of(rule) == Policy(mode=Mode.OBSERVE)
    assert run_policy.settings_of(rule) == DetectionSettings()


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from([mode.value for mode in Mode]),
        "patience": st.integers(1, 99),
        "detection": st.fixed_dictionaries({}, optional={"false_alarms_per_10k": st.floats(0.1, 9.0)}),
    },
)
LAYERS = st.dictionaries(st.sampled_from(Layer), FIELDS)


@given(LAYERS)
def test_every_value_is_that_of_the_last_layer_that_sets_it(layers: dict[Layer, dict[str, Any]]) -> None:
    rule = run_policy.rule_of(layers)
    found = {each.name: each for each in run_policy.values(layers, rule)}
    for name, default in (("mode", "auto"), ("patience", Policy().patience)):
        setters = [layer for layer in Layer if name in layers.get(layer, {})]
        expected = (layers[setters[-1]][name], setters[-1]) if setters else (default, None)
        assert found[name][1:] == expected
    alarms = [layer for layer in Layer if layers.get(layer, {}).get("detection")]
    value = (
        layers[alarms[-1]]["detection"]["false_alarms_per_10k"] if alarms else DetectionSettings().false_alarms_per_10k
    )
    assert found["false_alarms_per_10k"][1:] == (value, alarms[-1] if alarms else None)


@given(LAYERS)
def test_the_rule_of_the_layers_is_complete_and_decides_as_they_say(layers: dict[Layer, dict[str, Any]]) -> None:
    rule = run_policy.rule_of(layers)
    assert rule == (run_policy.to_rule(run_policy.policy_of(rule), run_policy.settings_of(rule)) if rule else None)


def test_a_run_without_layers_has_the_default_rule() -> None:
    assert run_policy.rule_of({}) is None
    assert run_policy.rule_of({Layer.RUN: {}}) is None
    assert run_policy.rule_of({Layer.COLLECTOR: {"first_run_mode": "observe"}}) is None


def test_a_change_keeps_what_it_does_not_name_and_none_removes_a_value() -> None:
    fields = {"mode": "approve", "patience": 9, "detection": {"false_alarms_per_10k": 0.5}}
    assert run_policy.changed(fields, {"mode": None}) == {"patience": 9, "detection": {"false_alarms_per_10k": 0.5}}
    assert run_policy.changed(fields, {"detection": {"false_alarms_per_10k": None}}) == {
        "mode": "approve",
        "patience": 9,
    }
    assert run_policy.changed(fields, {"detection": None}) == {"mode": "approve", "patience": 9}
    assert run_policy.changed(fields, {}) == fields


@pytest.mark.parametrize(
    ("layer", "fields", "reason"),
    [
        (Layer.PROJECT, {"depht": 3}, "unknown policy settings: depht"),
        (Layer.PROJECT, {"name": "bold"}, "bold"),
        (Layer.RUN, {"first_run_mode": "observe"}, "first_run_mode is a value of the collector, not of a run"),
        (Layer.RUN, {"skip_max": 100}, r"skip_max \(100\) must not be below skip_min \(300\)"),
    ],
)
def test_layers_that_make_no_policy_are_refused(layer: Layer, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        run_policy.check({Layer.COLLECTOR: {"skip_min": 300}, layer: fields})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"detection": 3}, "detection must be an object"),
        ({"first_run_mode": "brave"}, "must be one of observe, approve"),
    ],
)
def test_a_change_that_is_no_change_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        run_policy.changed({}, changes)


def test_the_values_of_a_run_that_has_ended_are_those_that_it_had() -> None:
    rule = run_policy.rule_of({Layer.PROJECT: {"mode": "approve"}})
    now = {Layer.PROJECT: {"mode": "observe"}}
    (mode,) = (each for each in run_policy.values(now, rule) if each.name == "mode")
    assert mode == ("mode", "approve", None)
