"""The rule of a run as it is stored and sent: the policy's fields, and under `detection` the changed settings."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from monitor.detection.interventions.policies import policy_named
from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.settings import DetectionSettings

DETECTION = "detection"


def policy_of(rule: Mapping[str, Any] | None) -> Policy:
    """By default one that orders rollbacks of the runs that can roll back. Raises ValueError.

    A stored rule without a name is from a release whose only policy was `palm`.
    """
    fields = {name: value for name, value in (rule or {}).items() if name != DETECTION}
    return Policy.from_dict({"name": "palm"} | fields) if fields else Policy(mode=Mode.AUTO)


def settings_of(rule: Mapping[str, Any] | None) -> DetectionSettings:
    """Raises ValueError."""
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
    settings_of(changes)  # what is no object cannot be merged
    settings = {**present.get(DETECTION, {}), **changes.get(DETECTION, {})}
    merged = {**present, **changes, DETECTION: settings}
    policy_named(merged["name"])
    return to_rule(policy_of(merged), settings_of(merged))
