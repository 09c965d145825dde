"""A run's rule as it is stored and sent: the policy's fields, and under `detection` what differs from the defaults."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from monitor.detection.interventions.policy import Mode, Policy
from monitor.detection.settings import DetectionSettings

DETECTION = "detection"


def policy_of(rule: Mapping[str, Any] | None) -> Policy:
    """By default PaLM's rule, acting by itself on the runs that can be rolled back. Raises ValueError."""
    told = {name: value for name, value in (rule or {}).items() if name != DETECTION}
    return Policy.from_dict(told) if told else Policy(mode=Mode.AUTO)


def settings_of(rule: Mapping[str, Any] | None) -> DetectionSettings:
    """Raises ValueError."""
    told = (rule or {}).get(DETECTION, {})
    if not isinstance(told, dict):
        raise ValueError(f"{DETECTION} must be an object of settings, not {told!r:.40}")
    return DetectionSettings.from_dict(told)


def to_rule(policy: Policy, settings: DetectionSettings) -> dict[str, Any]:
    usual = asdict(DetectionSettings())
    own = {name: value for name, value in asdict(settings).items() if value != usual[name]}
    return policy.to_dict() | ({DETECTION: own} if own else {})


def changed(rule: Mapping[str, Any] | None, wish: Mapping[str, Any]) -> dict[str, Any]:
    """The rule with the fields of `wish` in place of its own. Raises ValueError or TypeError for nonsense."""
    kept = to_rule(policy_of(rule), settings_of(rule))
    settings_of(wish)  # a wish that is no object cannot be merged
    own = {**kept.get(DETECTION, {}), **wish.get(DETECTION, {})}
    merged = {**kept, **wish, DETECTION: own}
    return to_rule(policy_of(merged), settings_of(merged))
