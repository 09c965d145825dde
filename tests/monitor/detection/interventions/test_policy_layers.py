"""The last layer that sets a value counts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.states import Layer
from monitor.detection import DetectionSettings, Mode, Policy
from monitor.detection.interventions import policy_layers, run_policy

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
    rule = policy_layers.rule_of(layers)
    found = {each.name: each for each in policy_layers.values(layers, rule)}
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
    rule = policy_layers.rule_of(layers)
    assert rule == (run_policy.to_rule(run_policy.policy_of(rule), run_policy.settings_of(rule)) if rule else None)


def test_a_run_without_layers_has_the_default_rule() -> None:
    assert policy_layers.rule_of({}) is None
    assert policy_layers.rule_of({Layer.RUN: {}}) is None
    assert policy_layers.rule_of({Layer.COLLECTOR: {"first_run_mode": "observe"}}) is None


def test_a_change_keeps_what_it_does_not_name_and_none_removes_a_value() -> None:
    fields = {"mode": "approve", "patience": 9, "detection": {"false_alarms_per_10k": 0.5}}
    assert policy_layers.changed(fields, {"mode": None}) == {"patience": 9, "detection": {"false_alarms_per_10k": 0.5}}
    assert policy_layers.changed(fields, {"detection": {"false_alarms_per_10k": None}}) == {
        "mode": "approve",
        "patience": 9,
    }
    assert policy_layers.changed(fields, {"detection": None}) == {"mode": "approve", "patience": 9}
    assert policy_layers.changed(fields, {}) == fields


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
        policy_layers.check({Layer.COLLECTOR: {"skip_min": 300}, layer: fields})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"detection": 3}, "detection must be an object"),
        ({"first_run_mode": "brave"}, "must be one of observe, approve"),
    ],
)
def test_a_change_that_is_no_change_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        policy_layers.changed({}, changes)


def test_the_values_of_a_run_that_has_ended_are_those_that_it_had() -> None:
    rule = policy_layers.rule_of({Layer.PROJECT: {"mode": "approve"}})
    now = {Layer.PROJECT: {"mode": "observe"}}
    (mode,) = (each for each in policy_layers.values(now, rule) if each.name == "mode")
    assert mode == ("mode", "approve", None)
