"""The policy of a run: the layers of values that it comes from, and its rule, as it is stored and sent.

Layers are what is set for the collector, for the project and for the run: the last one that sets a value counts. A rule
has the policy's fields, and under `detection` the settings that differ from their defaults.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from lossguard.vocabulary.states import Layer
from monitor.detection.interventions.policies import policy_named
from monitor.detection.settings import DetectionSettings, Mode, Policy

DETECTION = "detection"
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


def policy_of(rule: Fields | None) -> Policy:
    """The policy of a stored rule. One that this release cannot read only observes: it must not act by guess."""
    return _read_or_observe(rule)[0]


def settings_of(rule: Fields | None) -> DetectionSettings:
    """The detection settings of a stored rule; the defaults where this release cannot read it."""
    return _read_or_observe(rule)[1]


def read(rule: Fields | None) -> tuple[Policy, DetectionSettings]:
    """Read a stored rule; without policy fields it rolls back runs that can. Raises TypeError or ValueError."""
    fields = {**(rule or {})}
    settings = fields.pop(DETECTION, {})
    policy = Policy.from_dict(fields) if fields else Policy(mode=Mode.AUTO)
    if not isinstance(settings, dict):
        raise _no_object(settings)
    return policy, DetectionSettings.from_dict(settings)


def _read_or_observe(rule: Fields | None) -> tuple[Policy, DetectionSettings]:
    try:
        return read(rule)
    except (TypeError, ValueError):
        return Policy(mode=Mode.OBSERVE), DetectionSettings()


def to_rule(policy: Policy, settings: DetectionSettings) -> dict[str, Any]:
    """The inverse of `read`."""
    defaults = asdict(DetectionSettings())
    differing = {name: value for name, value in asdict(settings).items() if value != defaults[name]}
    return policy.to_dict() | ({DETECTION: differing} if differing else {})


# Layers


def rule_of(layers: Layers) -> dict[str, Any] | None:
    """The rule of a run with these layers; None without any value. Raises ValueError or TypeError."""
    fields, settings = dict[str, Any](), dict[str, Any]()
    for layer, each in layers.items():
        _check_object(each, f" of the {layer}")
    for layer in Layer:
        own, changed_settings = _parts(layers.get(layer, {}))
        fields |= own
        settings |= changed_settings
    fields.pop(FIRST_RUN_MODE, None)
    if not fields and not settings:
        return None
    return to_rule(Policy.from_dict({"mode": Mode.AUTO} | fields), DetectionSettings.from_dict(settings))


def values(layers: Layers, rule: Fields | None) -> Iterator[Value]:
    """Every value of a stored rule, policy and detection, and the layer that it comes from.

    A run that has ended keeps its rule: of a value that its layers set differently now, nobody knows the layer.
    """
    named = {layer: own | settings for layer in Layer for own, settings in [_parts(layers.get(layer, {}))]}
    for name, value in (policy_of(rule).to_dict() | asdict(settings_of(rule))).items():
        setters = [layer for layer in Layer if name in named[layer]]
        same = setters and named[setters[-1]][name] == value
        yield Value(name, value, setters[-1] if same else None)


def changed(fields: Fields, changes: Fields) -> dict[str, Any]:
    """The fields of a layer with `changes`; None removes a value. Raises ValueError or TypeError for a bad one."""
    _check_object(changes)
    own, settings = _parts(fields)
    new, new_settings = _parts(changes)
    if changes.get(DETECTION, {}) is None:
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


def _parts(fields: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the policy's own fields, the settings of the detection)."""
    own = {**fields}
    settings = own.pop(DETECTION, None)
    return own, dict(settings) if isinstance(settings, Mapping) else {}


def _check_object(fields: Fields, whose: str = "") -> None:
    if not isinstance(fields.get(DETECTION, {}), Mapping | None):
        raise _no_object(fields[DETECTION], whose)


def _no_object(settings: Any, whose: str = "") -> ValueError:
    return ValueError(f"{DETECTION}{whose} must be an object of settings, not {settings!r:.40}")


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
