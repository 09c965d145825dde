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
    values = dict(map(_parse_assignment, assignments))
    try:
        detection = DetectionSettings.from_dict({name: values[name] for name in DETECTION_NAMES if name in values})
        policy = Policy.from_dict({name: values[name] for name in POLICY_NAMES if name in values})
        policy_named(policy.name)
    except (TypeError, ValueError) as error:
        raise BadParameter(f"--set {' '.join(assignments)}: {error}") from None
    return detection, policy


def _parse_assignment(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or name not in NAMES:
        raise BadParameter(f"--set {assignment}: expected NAME=VALUE, with one of these names: {', '.join(NAMES)}")
    try:
        return name, json.loads(text)  # a number, true or false
    except ValueError:
        return name, text
