"""The layers of a run's policy: what is set for the collector, for the project and for the run. The last one counts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from lossguard.vocabulary.states import Layer
from monitor.detection.interventions.policies import policy_named
from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.interventions.run_policy import DETECTION, policy_of, settings_of, to_rule
from monitor.detection.settings import DetectionSettings

FIRST_RUN_MODE = "first_run_mode"
"""Field of the collector's layer: mode in which a project's first run starts, unless the run sets its own."""

Fields = Mapping[str, Any]
"""The values that a layer sets: fields of `Policy`, and under `detection` those of `DetectionSettings`."""


Layers = Mapping[Layer, Fields]
"""The layers that set something."""


class Value(NamedTuple):
    """One value of a run's policy."""

    name: str
    value: Any
    layer: Layer | None
    """The layer that sets it; None: no layer does, and it is the default."""


def rule_of(layers: Layers) -> dict[str, Any] | None:
    """The rule of a run with these layers as it is stored; None without any value. Raises ValueError or TypeError."""
    for layer, each in layers.items():
        if not isinstance(each.get(DETECTION, {}), Mapping | None):
            raise ValueError(f"{DETECTION} of the {layer} must be an object of settings, not {each[DETECTION]!r:.40}")
    fields, settings = _combined(layers)
    if not fields and not settings:
        return None
    policy = Policy.from_dict({"mode": Mode.AUTO} | fields)
    return to_rule(policy, DetectionSettings.from_dict(settings))


def values(layers: Layers, rule: Fields | None) -> Iterator[Value]:
    """Every value of a stored rule, policy and detection, and the layer that it comes from.

    A run that has ended keeps its rule: of a value that its layers set differently now, nobody knows the layer.
    """
    policy, settings = policy_of(rule).to_dict(), asdict(settings_of(rule))
    for name, value in (policy | settings).items():
        setters = [layer for layer in Layer if name in _named(layers.get(layer, {}))]
        same = setters and _named(layers[setters[-1]])[name] == value
        yield Value(name, value, setters[-1] if same else None)


def _named(fields: Fields) -> dict[str, Any]:
    own, settings = _parts(fields)
    return own | settings


def changed(fields: Fields, changes: Fields) -> dict[str, Any]:
    """The fields of a layer with `changes`; None removes a value. Raises ValueError or TypeError for a bad one."""
    own, settings = _parts(fields)
    new, new_settings = _parts(changes)
    if not isinstance(changes.get(DETECTION, {}), Mapping | None):
        raise ValueError(f"{DETECTION} must be an object of settings, not {changes[DETECTION]!r:.40}")
    if DETECTION in changes and changes[DETECTION] is None:
        settings = {}
    own, settings = _without_none(own | new), _without_none(settings | new_settings)
    first = own.get(FIRST_RUN_MODE)
    if first is not None and first not in tuple(Mode):
        raise ValueError(f"{FIRST_RUN_MODE} must be one of {', '.join(Mode)}, not {first!r:.80}")
    return own | ({DETECTION: settings} if settings else {})


def check(layers: Layers) -> None:
    """Raise ValueError or TypeError unless a run with these layers has a policy that can be carried out here."""
    for layer, fields in layers.items():
        if FIRST_RUN_MODE in fields and layer is not Layer.COLLECTOR:
            raise ValueError(f"{FIRST_RUN_MODE} is a value of the collector, not of a {layer}")
    rule = rule_of(layers)
    if rule is not None:
        policy_named(rule["name"])


def of_first_run(collector: Fields) -> dict[str, Any]:
    """Return the fields for the first run of a project, which apply if the run sets nothing itself."""
    return {"mode": collector[FIRST_RUN_MODE]} if FIRST_RUN_MODE in collector else {}


def _combined(layers: Layers) -> tuple[dict[str, Any], dict[str, Any]]:
    fields: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for layer in Layer:
        own, changed = _parts(layers.get(layer, {}))
        fields |= own
        settings |= changed
    fields.pop(FIRST_RUN_MODE, None)
    return fields, settings


def _parts(fields: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the policy's own fields, the settings of the detection)."""
    settings = fields.get(DETECTION)
    own = {name: value for name, value in fields.items() if name != DETECTION}
    return own, dict(settings) if isinstance(settings, Mapping) else {}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
