"""The rule of a run as it is stored and sent: the policy's fields, and under `detection` the changed settings."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from monitor.detection.interventions.policies import policy_named
from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.settings import DetectionSettings

DETECTION = "detection"


def policy_of(rule: Mapping[str, Any] | None) -> Policy:
    """The policy of a stored rule. One that this release cannot read only observes: it must not act by guess."""
    return _read(rule)[0]


def settings_of(rule: Mapping[str, Any] | None) -> DetectionSettings:
    """The detection settings of a stored rule; the defaults where this release cannot read it."""
    return _read(rule)[1]


def check(rule: Mapping[str, Any] | None) -> None:
    """Raise TypeError or ValueError for a stored rule that this release cannot read."""
    _policy(rule)
    _settings(rule)


def _read(rule: Mapping[str, Any] | None) -> tuple[Policy, DetectionSettings]:
    try:
        return _policy(rule), _settings(rule)
    except (TypeError, ValueError):
        return Policy(mode=Mode.OBSERVE), DetectionSettings()


def _policy(rule: Mapping[str, Any] | None) -> Policy:
    """Return the policy; by default one that orders rollbacks of runs that can. Raises TypeError or ValueError."""
    fields = {name: value for name, value in (rule or {}).items() if name != DETECTION}
    return Policy.from_dict(fields) if fields else Policy(mode=Mode.AUTO)


def _settings(rule: Mapping[str, Any] | None) -> DetectionSettings:
    settings = (rule or {}).get(DETECTION, {})
    if not isinstance(settings, dict):
        raise ValueError(f"{DETECTION} must be an object of settings, not {settings!r:.40}")
    return DetectionSettings.from_dict(settings)


def to_rule(policy: Policy, settings: DetectionSettings) -> dict[str, Any]:
    defaults = asdict(DetectionSettings())
    differing = {name: value for name, value in asdict(settings).items() if value != defaults[name]}
    return policy.to_dict() | ({DETECTION: differing} if differing else {})


def changed(rule: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The rule with the fields of `changes` in place of its own. Raises ValueError or TypeError for a bad field."""
    present = to_rule(policy_of(rule), settings_of(rule))
    _settings(changes)  # what is no object cannot be merged
    settings = {**present.get(DETECTION, {}), **changes.get(DETECTION, {})}
    merged = {**present, **changes, DETECTION: settings}
    policy = _policy(merged)
    policy_named(policy.name)
    return to_rule(policy, _settings(merged))
