"""`--set NAME=VALUE`: the parameters of detection and policy as a command line gives them."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from monitor.detection import DetectionSettings, Policy

DETECTION = [field.name for field in fields(DetectionSettings)]
POLICY = [field.name for field in fields(Policy)]
NAMES = DETECTION + POLICY


class BadParameter(ValueError):
    """One sentence that names the parameter and the value."""


def read(settings: Sequence[str]) -> tuple[DetectionSettings, Policy]:
    """The parameters with these changes. Raises BadParameter."""
    values = dict(map(_pair, settings))
    try:
        detection = DetectionSettings.from_dict({name: values[name] for name in DETECTION if name in values})
        policy = Policy.from_dict({name: values[name] for name in POLICY if name in values})
    except (TypeError, ValueError) as error:
        raise BadParameter(f"--set {' '.join(settings)}: {error}") from None
    return detection, policy


def _pair(setting: str) -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals or name not in NAMES:
        raise BadParameter(f"--set {setting}: write NAME=VALUE with a name of: {', '.join(NAMES)}")
    try:
        return name, json.loads(text)  # a number, true or false
    except ValueError:
        return name, text
