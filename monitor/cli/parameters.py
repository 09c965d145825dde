"""`--set NAME=VALUE`: settings of the detection and of the policy on the command line."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from monitor.detection import DetectionSettings, Policy
from monitor.detection.interventions.policies import policy_named

DETECTION_NAMES = [field.name for field in fields(DetectionSettings)]
POLICY_NAMES = [field.name for field in fields(Policy)]
NAMES = DETECTION_NAMES + POLICY_NAMES


class BadParameter(ValueError):
    """A sentence that names the parameter and the value."""


def parse(assignments: Sequence[str]) -> tuple[DetectionSettings, Policy]:
    """Settings and policy with these NAME=VALUE assignments. Raises BadParameter."""
    try:
        values = dict(map(parse_assignment, assignments))
    except BadParameter as error:
        raise BadParameter(f"--set {error}") from None
    try:
        detection = DetectionSettings.from_dict({name: values[name] for name in DETECTION_NAMES if name in values})
        policy = Policy.from_dict({name: values[name] for name in POLICY_NAMES if name in values})
        policy_named(policy.name)
    except (TypeError, ValueError) as error:
        raise BadParameter(f"--set {' '.join(assignments)}: {error}") from None
    return detection, policy


def parse_assignment(assignment: str, *, more: Sequence[str] = ()) -> tuple[str, Any]:
    """The name and the value of NAME=VALUE; `more` names are allowed beside NAMES. Raises BadParameter."""
    name, equals, text = assignment.partition("=")
    known = [*NAMES, *more]
    if not equals or name not in known:
        raise BadParameter(f"{assignment}: expected NAME=VALUE, with one of these names: {', '.join(known)}")
    try:
        return name, json.loads(text)  # a number, true or false
    except ValueError:
        return name, text
