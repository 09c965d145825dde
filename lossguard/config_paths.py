"""The settings of a configuration by dotted path: {"optimizer": {"lr": 3e-4}} has the setting `optimizer.lr`. Pure."""

from collections.abc import Mapping
from typing import Any


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as dotted names: {"model": {"width": 128}} is {"model.width": 128}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def settings_named(settings: Mapping[str, Any], name: str) -> list[Any]:
    """The values of the flattened setting `name`, else of every setting whose last component that is."""
    if name in settings:
        return [settings[name]]
    ending = f".{name}"
    return [value for path, value in settings.items() if path.endswith(ending)]
